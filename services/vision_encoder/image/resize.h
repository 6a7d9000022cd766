// ResizeBicubic scales a picture as torchvision's resize(BICUBIC, antialias=True) does on bytes:
// the width first, then the height, bytes in between; an axis that keeps its size is skipped.
//
//   scale = in / out,  support = 2 max(scale, 1),  K the cubic with a = -1/2
//   for output i: centre c = scale (i + 1/2), taps x0 .. x0 + n - 1 around it,
//   w[j] = K((x0 + j - c + 1/2) / max(scale, 1)), divided by their sum
//   out = clamp((2^(p-1) + sum_j round(w[j] 2^p) in[x0 + j]) >> p, 0, 255)
// with p the largest precision at which every weight fits 16 bits, at most 21.
//
// All arithmetic on pixels is in integers, so the result is the same bytes on every machine and
// instruction set. Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "services/vision_encoder/image/rgb_image.h"

namespace prism {

// The quantised weights of one axis.
struct AxisWeights {
  int precision = 0;             // p
  int64_t stride = 0;            // weights kept per output, a multiple of 4; unused ones are 0
  std::vector<int64_t> first;    // [out] x0
  std::vector<int64_t> count;    // [out] n
  std::vector<int16_t> weights;  // [out, stride]
};

// REQUIRES: in >= 1, out >= 1
AxisWeights ComputeAxisWeights(int64_t in, int64_t out);

// REQUIRES: image is not empty, sides of `to` >= 1
RgbImage ResizeBicubic(RgbImage image, ImageSize to);

}  // namespace prism
