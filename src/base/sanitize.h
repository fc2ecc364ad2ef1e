/* Whether a sanitizer watches this build. What keeps blocks of its own then leaves every one of them to malloc and
 * free, so that each block's own life is seen. */
#ifndef KV_BASE_SANITIZE_H
#define KV_BASE_SANITIZE_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
