#include "services/router/parts.h"

#include <algorithm>

namespace prism {

int64_t RouterParts::LengthMax() const {
  int64_t length_max = model->text.max_position_embeddings;
  if (options->max_model_len > 0) length_max = std::min(length_max, options->max_model_len);
  if (const auto decoders_max = decoders->model_length_max(); decoders_max.has_value()) {
    length_max = static_cast<int64_t>(std::min<uint64_t>(length_max, *decoders_max));
  }
  return length_max;
}

}  // namespace prism
