// ToolCallReader takes tool calls, as Qwen3 writes them between its markers, from the text of an answer as
// it comes: the name at once when it is known, the arguments in pieces.
//
//   \n{"name": NAME, "arguments": ARGUMENTS}\n
//
// The decoder's grammar lets nothing else come between the markers; what has another form all the same
// (a decoder of another version) is given back as text.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace prism {

class ToolCallReader {
 public:
  struct Piece {
    uint32_t index = 0;     // of the call in its answer
    std::string name;       // in the first piece of a call alone
    std::string arguments;  // to be appended
  };
  struct Output {
    std::vector<Piece> pieces;
    std::string text;  // what was no call
  };

  // The marker before a call came.
  void Begin();
  // Text after the marker. REQUIRES: Begin() was called
  Output Push(absl::string_view text);
  // The answer has ended: a beginning that was held back is text.
  Output Finish();

  // Calls whose name was given.
  uint32_t num_calls() const { return num_calls_; }

 private:
  enum class Place {
    kHead,       // before the arguments; held_ has what came
    kArguments,  // in them
    kBehind,     // behind them
    kText,       // in what is no call
  };
  // Moves what `held_` tells for certain to `output`.
  void ReadHead(Output* output);
  // How much of `text` belongs to the arguments.
  size_t ArgumentBytes(absl::string_view text);

  Place place_ = Place::kBehind;
  std::string held_;
  uint32_t num_calls_ = 0;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace prism
