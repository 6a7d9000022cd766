// HttpServer speaks HTTP/1.1 (and 1.0) to clients: limits, timeouts, keep-alive, and answers that may
// be streamed. What a request means is the handler's business.
//
// Threads: its own. A connection lives on a strand; everything the handler and its callbacks do with
// an HttpExchange happens there, except Post(). Nothing called on a strand may block.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

struct HttpHeader {
  std::string name;
  std::string value;
};

struct HttpRequest {
  std::string method;               // "GET"
  std::string target;               // as sent: "/v1/models?x=1"
  std::vector<HttpHeader> headers;  // in the client's order, values without outer white space
  std::string body;

  // The first header of that name, whatever its case; empty if there is none.
  absl::string_view Header(absl::string_view name) const;
  // The target up to its '?'.
  absl::string_view Path() const;
};

struct HttpAnswer {
  int status = 200;
  std::vector<HttpHeader> headers;  // besides Content-Length and Connection
  std::string body;
};

enum class HttpGone {
  kClient,      // closed or reset by the client
  kSlowReader,  // took no byte for write_timeout
  kServer,      // the server is stopping
};

// One request waiting for its answer: SendUnary(), or BeginStream(), Write()..., End().
//
// Threads: Post() from any thread; all else on the strand, which is where the handler is called.
// Ownership: shared by the connection and whoever works on the answer, because either may be the
// last to let go: a client may leave while a call to another service still runs, and that call's
// last event may come after the client has got everything. Once over, every method is harmless.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  // Runs `task` on the strand, soon. Tasks posted from one thread keep their order.
  virtual void Post(std::function<void()> task) = 0;
  // Runs `task` on the strand after `delay`, unless the exchange is over by then.
  virtual void After(std::chrono::milliseconds delay, std::function<void()> task) = 0;

  // The whole answer. REQUIRES: neither SendUnary() nor BeginStream() was called.
  virtual void SendUnary(HttpAnswer answer) = 0;

  // Sends the head; the body follows in parts. REQUIRES: as above. `answer.body` is the first part.
  virtual void BeginStream(HttpAnswer answer) = 0;
  virtual void Write(absl::string_view part) = 0;
  // The body is complete.
  virtual void End() = 0;
  // Cuts the connection, so that the client sees a body that is not complete.
  virtual void Abort() = 0;

  // Bytes taken by Write() and not by the client's socket yet. A writer that can wait does so when
  // this is above HttpServerOptions.stream_buffer_bytes_max, with WhenWritable(); one that goes on
  // all the same is cut off at twice that.
  virtual size_t buffered_bytes() const = 0;
  virtual bool writable() const = 0;
  // Runs `task` once the buffer is below its limit again; at most one waits.
  virtual void WhenWritable(std::function<void()> task) = 0;

  // Runs `task` once if the client goes before the answer is complete. Set at most one.
  virtual void WhenGone(std::function<void(HttpGone)> task) = 0;
  virtual bool over() const = 0;
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;  // 0: any free one
  int num_threads = 2;
  size_t header_bytes_max = 16 << 10;                       // request line and headers; beyond: 431
  uint64_t body_bytes_max = 48u << 20;                      // beyond: 413
  uint64_t bodies_bytes_max = 1u << 30;                     // all bodies held at a time; beyond: 503
  size_t connections_max = 1024;                            // beyond: 503 and closed
  std::chrono::milliseconds header_timeout{10'000};         // from a request's first byte; beyond: 408
  std::chrono::milliseconds body_progress_timeout{15'000};  // between two reads of a body; beyond: 408
  std::chrono::milliseconds body_timeout{120'000};          // a whole body; beyond: 408
  std::chrono::milliseconds idle_timeout{75'000};           // between requests; then closed
  std::chrono::milliseconds write_timeout{30'000};          // without a byte taken; then cut off
  std::chrono::milliseconds linger_timeout{2'000};          // for a client to read an answer that came early
  // When the server stops: for last bytes to be sent, and once more for exchanges to be let go of.
  std::chrono::milliseconds stop_timeout{2'500};
  size_t stream_buffer_bytes_max = 256 << 10;  // of one connection

  // Called on the strand with each request; the answer may come later.
  std::function<void(HttpRequest, std::shared_ptr<HttpExchange>)> handler;
  // Looks at a request before its body is read; an answer refuses it. Absent: nothing is refused.
  std::function<std::optional<HttpAnswer>(const HttpRequest&)> check_head;
  // The answer to what is refused before the handler sees it.
  std::function<HttpAnswer(int status, absl::string_view message)> error_answer;
};

class HttpServer {
 public:
  // InvalidArgument: host or port. Unavailable, naming the address: it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options);
  // Stops if Stop() was not called.
  virtual ~HttpServer() = default;

  virtual int port() const = 0;
  virtual size_t num_connections() const = 0;
  // Exchanges whose answer is not complete. Any thread.
  virtual size_t num_exchanges() const = 0;
  // From now on every answer says Connection: close.
  virtual void CloseAfterAnswers() = 0;
  // Accepts no more, sends what is left of complete answers, cuts what else is open, joins the threads.
  // The owner's thread; takes some seconds at most.
  virtual void Stop() = 0;
};

// "Not Found" for 404; "Status" for numbers we never send.
absl::string_view HttpReason(int status);

}  // namespace prism
