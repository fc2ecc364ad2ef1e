# Embeds migrations/<back end>/NNNN_<name>.sql into kv_store. Included by CMakeLists.txt, it declares the build step;
# run by that step as a script (-P), it writes the C file: every SQL file as a byte array, in order of its number, and
# one table a back end, as src/store/migrate.h declares them.

if(CMAKE_SCRIPT_MODE_FILE)
  set(arrays "")
  set(tables "")
  foreach(backend sqlite postgres)
    file(GLOB files ${SOURCE_DIR}/${backend}/*.sql)
    list(SORT files)
    set(rows "")
    set(expected 1)
    foreach(file ${files})
      get_filename_component(stem ${file} NAME_WE)
      if(NOT stem MATCHES "^([0-9][0-9][0-9][0-9])_([a-z0-9_]+)$")
        message(FATAL_ERROR "${file}: migrations are named NNNN_<name>.sql")
      endif()
      set(digits ${CMAKE_MATCH_1})
      set(name ${CMAKE_MATCH_2})
      string(REGEX REPLACE "^0+" "" version ${digits})
      if(NOT version EQUAL expected)
        message(FATAL_ERROR "${file}: expected number ${expected}; migrations are numbered without gaps")
      endif()
      math(EXPR expected "${expected} + 1")
      file(READ ${file} hex HEX)
      string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
      string(APPEND arrays "static const char ${backend}_${version}[] = {${bytes}'\\0'};\n")
      string(APPEND rows "    {${version}, \"${name}\", ${backend}_${version}},\n")
    endforeach()
    string(APPEND tables "const struct migration ${backend}_migrations[] = {\n${rows}    {0, 0, 0},\n};\n")
  endforeach()
  file(WRITE ${OUTPUT} "#include \"store/migrate.h\"\n\n${arrays}\n${tables}")
  return()
endif()

file(GLOB migration_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/migrations/*/*.sql)
set(migrations_c ${CMAKE_BINARY_DIR}/migrations.c)
add_custom_command(
  OUTPUT ${migrations_c}
  COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${CMAKE_SOURCE_DIR}/migrations -DOUTPUT=${migrations_c}
    -P ${CMAKE_SOURCE_DIR}/cmake/migrations.cmake
  DEPENDS ${migration_files} ${CMAKE_SOURCE_DIR}/cmake/migrations.cmake)
target_sources(kv_store PRIVATE ${migrations_c})
