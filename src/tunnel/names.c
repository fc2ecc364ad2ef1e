/*
 * Random names: 24 x 24 words x 9000 numbers make about five million. They are short enough to read out over the
 * telephone, and no secret; whoever hands one out draws again when it is taken.
 */
#include "tunnel/names.h"

#include <stdio.h>

#include "base/random.h"

#define SIZE(array)  (sizeof(array) / sizeof((array)[0]))

#define NUMBER_FIRST 1000
#define NUMBER_COUNT 9000

static const char *const adjectives[] = {
    "brave", "bright", "calm", "clever", "cosy",   "eager", "fancy",  "gentle", "happy", "jolly", "kind", "lively",
    "lucky", "merry",  "neat", "nimble", "polite", "quick", "sleepy", "snappy", "sunny", "swift", "tidy", "witty",
};
static const char *const animals[] = {
    "badger", "beaver", "bison", "crane", "dolphin", "falcon", "ferret", "finch", "fox",    "gecko", "hare", "hedgehog",
    "heron",  "koala",  "lemur", "lynx",  "marmot",  "otter",  "owl",    "panda", "puffin", "robin", "seal", "walrus",
};
_Static_assert(SIZE(adjectives) == 24 && SIZE(animals) == 24, "the documentation promises 24 words of each");

void names_random(char out[LIMIT_LABEL_BYTES + 1])
{
    const char *adjective = adjectives[random_below(SIZE(adjectives))];
    const char *animal = animals[random_below(SIZE(animals))];
    snprintf(out, LIMIT_LABEL_BYTES + 1, "%s-%s-%u", adjective, animal, NUMBER_FIRST + random_below(NUMBER_COUNT));
}
