// Histogram buckets, in seconds unless said otherwise: those of the dashboards that people have.
#pragma once

#include <vector>

namespace prism {

// Time to first token.
inline constexpr double kFirstTokenBuckets[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                                1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
// Between two tokens of a stream.
inline constexpr double kInterTokenBuckets[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                                .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
// Whole requests, and their queue, prefill and decode parts.
inline constexpr double kRequestBuckets[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                             30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
// One stage of a request, and single RPCs.
inline constexpr double kStageBuckets[] = {.0005, .001, .0025, .005, .01, .025, .05, .1,
                                           .25,   .5,   1,     2.5,  5,   10,   30,  60};

// 1, 2, 5, 10, 20, 50, ... up to the first that is >= value_max. For counts. REQUIRES: value_max >= 1
std::vector<double> OneTwoFiveBuckets(double value_max);

}  // namespace prism
