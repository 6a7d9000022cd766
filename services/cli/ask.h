// prism ask: pictures and a question to a running cluster, its answer to standard output as it comes.
//
// Threads: blocks the caller.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

struct AskOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string api_key;                // empty: none
  std::vector<std::string> pictures;  // paths
  std::string question;
  int max_tokens = 0;                 // 0: what the context leaves
  std::optional<double> temperature;  // absent: the model's own
  std::optional<double> fps;          // the pictures are a clip's frames, so many a second
  std::optional<uint64_t> seed;
};

// Returns the exit code; errors were printed to standard error.
int Ask(const AskOptions& options);

// The request's body. NotFound, InvalidArgument: a picture that cannot be read or is none.
absl::StatusOr<std::string> AskBody(const AskOptions& options);

// Takes server-sent events as they come in parts of any size.
class AnswerReader {
 public:
  // Returns the text that these bytes complete; reasoning stands between <think> and </think>.
  std::string Take(absl::string_view part);
  // What the server said went wrong; empty: nothing.
  const std::string& error() const { return error_; }
  // The answer came to its end.
  bool done() const { return done_; }

 private:
  void TakeEvent(absl::string_view json, std::string* text);
  std::string held_;
  std::string error_;
  bool thinking_ = false;
  bool finished_ = false;
  bool done_ = false;
};

// The message of an error body, or the body itself.
std::string ErrorMessageOf(absl::string_view body);

}  // namespace prism
