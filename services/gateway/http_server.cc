#include "services/gateway/http_server.h"

// The only file that includes Boost: Asio for sockets and strands, Beast for its parser.
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "services/gateway/live_count.h"

namespace prism {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

// One read takes at most this much; between requests no more than it is kept of what a client sends
// ahead.
constexpr size_t kReadBytes = 32 << 10;
// Chunk sizes and trailers the parser cannot get through within so many bytes are no request.
constexpr size_t kUnparsedBytesMax = 128 << 10;
// After an early answer the rest of a body is read and thrown away up to here, so that the client
// gets to read the answer.
constexpr uint64_t kLingerBytesMax = 256u << 20;
// A body of unknown length is accounted for in steps.
constexpr uint64_t kBodyStepBytes = 1 << 20;

// What all connections share. It outlives the server if an exchange does.
struct Shared {
  explicit Shared(HttpServerOptions o) : options(std::move(o)), io(options.num_threads) {}
  HttpServerOptions options;
  asio::io_context io;
  LiveCount connections;
  LiveCount exchanges;
  std::atomic<uint64_t> bodies_bytes{0};
  std::atomic<bool> close_after_answers{false};
  std::atomic<bool> stopping{false};
};

// A part of bodies_bytes_max, given back when it goes.
class BodyCharge {
 public:
  explicit BodyCharge(Shared* shared) : shared_(shared) {}
  ~BodyCharge() { shared_->bodies_bytes -= bytes_; }
  BodyCharge(const BodyCharge&) = delete;
  BodyCharge& operator=(const BodyCharge&) = delete;
  // False if all bodies together would be too large.
  bool Raise(uint64_t bytes) {
    if (bytes <= bytes_) return true;
    const uint64_t more = bytes - bytes_;
    if (shared_->bodies_bytes.fetch_add(more) + more > shared_->options.bodies_bytes_max) {
      shared_->bodies_bytes -= more;
      return false;
    }
    bytes_ = bytes;
    return true;
  }

 private:
  Shared* const shared_;
  uint64_t bytes_ = 0;
};

class Connection;

class Exchange final : public HttpExchange, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::shared_ptr<Connection> connection, std::shared_ptr<Shared> shared, bool keep_alive,
           bool chunked)
      : connection_(std::move(connection)),
        shared_(std::move(shared)),
        charge_(shared_.get()),
        keep_alive_(keep_alive),
        chunked_(chunked) {
    shared_->exchanges.Add();
  }
  ~Exchange() override {
    if (!over_) shared_->exchanges.Remove();
  }

  void Post(std::function<void()> task) override;
  void After(milliseconds delay, std::function<void()> task) override;
  void SendUnary(HttpAnswer answer) override;
  void BeginStream(HttpAnswer answer) override;
  void Write(absl::string_view part) override;
  void End() override;
  void Abort() override;
  size_t buffered_bytes() const override;
  bool writable() const override {
    return over_ || buffered_bytes() <= shared_->options.stream_buffer_bytes_max;
  }
  void WhenWritable(std::function<void()> task) override {
    if (over_) return;
    when_writable_ = std::move(task);
    Progress();
  }
  void WhenGone(std::function<void(HttpGone)> task) override {
    if (!over_) when_gone_ = std::move(task);
  }
  bool over() const override { return over_; }

  // For the connection: bytes were taken; the client went.
  void Progress() {
    if (when_writable_ && writable()) {
      const std::function<void()> task = std::exchange(when_writable_, nullptr);
      Post(task);
    }
  }
  void Gone(HttpGone why) {
    if (over_) return;
    const std::function<void(HttpGone)> task = std::exchange(when_gone_, nullptr);
    Finish();
    // Posted, because it may be in the middle of a Write() that we noticed.
    if (task) Post([task, why] { task(why); });
  }
  BodyCharge* charge() { return &charge_; }
  // The client asked for the head alone.
  void OmitBody() { omit_body_ = true; }

 private:
  // Lets go of everything that could keep others alive.
  void Finish() {
    if (std::exchange(over_, true)) return;
    shared_->exchanges.Remove();
    when_writable_ = nullptr;
    when_gone_ = nullptr;
    for (const auto& timer : timers_) timer->cancel();
    timers_.clear();
  }
  std::string Head(const HttpAnswer& answer, bool streamed);

  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<Shared> shared_;
  BodyCharge charge_;
  bool keep_alive_;
  const bool chunked_;  // the client understands chunks; otherwise a stream ends with the connection
  bool omit_body_ = false;
  bool begun_ = false;
  bool over_ = false;
  std::function<void()> when_writable_;
  std::function<void(HttpGone)> when_gone_;
  std::vector<std::shared_ptr<asio::steady_timer>> timers_;
};

// One client. Everything runs on strand_.
class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  // The executor of `socket` is a strand.
  Connection(tcp::socket socket, std::shared_ptr<Shared> shared)
      : shared_(std::move(shared)),
        strand_(socket.get_executor()),
        socket_(std::move(socket)),
        read_timer_(strand_),
        write_timer_(strand_) {
    shared_->connections.Add();
  }
  ~Connection() { shared_->connections.Remove(); }

  const asio::any_io_executor& strand() const { return strand_; }

  void Start() {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    if (shared_->connections.value() > shared_->options.connections_max) {
      Refuse(503, absl::StrCat("more than ", shared_->options.connections_max, " connections"));
      return;
    }
    NextRequest();
  }

  // Cuts the connection, whatever it is doing.
  void Close(HttpGone why) {
    if (phase_ == Phase::kClosed) return;
    phase_ = Phase::kClosed;
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_both, ignored);
    socket_.close(ignored);
    read_timer_.cancel();
    write_timer_.cancel();
    parser_.reset();
    if (const std::shared_ptr<Exchange> exchange = std::exchange(exchange_, nullptr)) exchange->Gone(why);
  }

  // The server stops: cuts the connection, unless all it has left to do is to send its last bytes.
  void Shut() {
    if (phase_ == Phase::kLinger) return;
    if (answered_) {
      keep_alive_ = false;
    } else {
      Close(HttpGone::kServer);
    }
  }

  // ---- For the exchange -----------------------------------------------------------------------
  void Send(absl::string_view bytes) {
    if (phase_ == Phase::kClosed) return;
    waiting_.append(bytes.data(), bytes.size());
    StartWrite();
  }
  // The answer is complete once what was sent has been written.
  void AnswerComplete(bool keep_alive) {
    if (phase_ == Phase::kClosed) return;
    exchange_ = nullptr;
    answered_ = true;
    keep_alive_ = keep_alive;
    if (!writing_) AfterAnswer();
  }
  size_t buffered_bytes() const { return waiting_.size() + being_written_.size() - written_; }

 private:
  enum class Phase { kIdle, kHead, kBody, kHandling, kLinger, kClosed };
  using Parser = http::request_parser<http::string_body>;

  // ---- Reading ----------------------------------------------------------------------------------
  void NextRequest() {
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(shared_->options.header_bytes_max));
    parser_->body_limit(shared_->options.body_bytes_max);
    phase_ = Phase::kIdle;
    exchange_ = nullptr;
    answered_ = false;
    request_ = HttpRequest();
    SetReadTimer(shared_->options.idle_timeout);
    Parse();
  }

  void SetReadTimer(milliseconds timeout) {
    read_timer_.expires_after(timeout);
    read_timer_.async_wait([self = shared_from_this()](error_code error) {
      // A timer that was set anew after it had expired is not late.
      if (!error && self->read_timer_.expiry() <= asio::steady_timer::clock_type::now()) self->ReadTimedOut();
    });
  }

  void ReadTimedOut() {
    switch (phase_) {
      case Phase::kHead:
        Refuse(408, "the request's head did not come in time");
        break;
      case Phase::kBody:
        Refuse(408, "the request's body did not come in time");
        break;
      case Phase::kIdle:
      case Phase::kLinger:
        Close(HttpGone::kClient);
        break;
      case Phase::kHandling:
      case Phase::kClosed:
        break;
    }
  }

  void StartRead() {
    if (reading_ || phase_ == Phase::kClosed) return;
    // What a client sends ahead while it waits for an answer stays in the socket beyond this.
    if (phase_ == Phase::kHandling && in_.size() >= kReadBytes) return;
    reading_ = true;
    socket_.async_read_some(asio::buffer(read_buffer_),
                            [self = shared_from_this()](error_code error, size_t bytes) {
                              self->reading_ = false;
                              self->OnRead(error, bytes);
                            });
  }

  void OnRead(error_code error, size_t bytes) {
    if (phase_ == Phase::kClosed) return;
    if (error) {
      // A client that has said its last word may still be reading the rest of its answer.
      if (error == asio::error::eof && answered_) {
        keep_alive_ = false;
      } else {
        Close(HttpGone::kClient);
      }
      return;
    }
    if (phase_ != Phase::kLinger) in_.append(read_buffer_.data(), bytes);
    switch (phase_) {
      case Phase::kIdle:
      case Phase::kHead:
      case Phase::kBody:
        Parse();
        break;
      case Phase::kHandling:
        StartRead();
        break;
      case Phase::kLinger:
        lingered_bytes_ += bytes;
        if (lingered_bytes_ > kLingerBytesMax) {
          Close(HttpGone::kClient);
        } else {
          StartRead();
        }
        break;
      case Phase::kClosed:
        break;
    }
  }

  // Feeds the parser with what was read, and acts on what it found.
  void Parse() {
    if (phase_ == Phase::kIdle && !in_.empty()) {
      phase_ = Phase::kHead;
      SetReadTimer(shared_->options.header_timeout);
    }
    while (!in_.empty() && !parser_->is_done()) {
      // The head alone first: what it says decides whether the body is read at all.
      parser_->eager(phase_ == Phase::kBody);
      error_code error;
      const size_t used = parser_->put(asio::buffer(in_.data(), in_.size()), error);
      in_.erase(0, used);
      if (error == http::error::need_more) {
        if (in_.size() > kUnparsedBytesMax) return Refuse(400, "a chunk's head is too long");
        break;
      }
      if (error) return RefuseMalformed(error);
      if (phase_ == Phase::kHead && parser_->is_header_done() && !HeadIsAcceptable()) return;
      if (phase_ == Phase::kBody && !BodyFits()) return;
    }
    if (phase_ == Phase::kBody && parser_->is_done()) return Handle();
    if (phase_ == Phase::kBody) {
      const auto left = body_deadline_ - asio::steady_timer::clock_type::now();
      SetReadTimer(std::min(shared_->options.body_progress_timeout,
                            std::max(std::chrono::duration_cast<milliseconds>(left), milliseconds(0))));
    }
    StartRead();
  }

  bool BodyFits() {
    const uint64_t size = parser_->get().body().size();
    const uint64_t charged = (size + kBodyStepBytes - 1) / kBodyStepBytes * kBodyStepBytes;
    if (exchange_->charge()->Raise(parser_->content_length() ? *parser_->content_length() : charged))
      return true;
    Refuse(503, "too many requests are being received");
    return false;
  }

  // The head is there: refuses, or goes on to the body. False if refused.
  bool HeadIsAcceptable() {
    const auto& message = parser_->get();
    const bool is_http_11 = message.version() >= 11;
    if (message.version() != 10 && message.version() != 11) {
      Refuse(505, "want HTTP/1.0 or HTTP/1.1");
      return false;
    }
    request_.method = std::string(message.method_string());
    request_.target = std::string(message.target());
    size_t num_hosts = 0;
    for (const auto& field : message) {
      request_.headers.push_back({std::string(field.name_string()), std::string(field.value())});
      if (field.name() == http::field::host) ++num_hosts;
    }
    if (num_hosts > 1 || (is_http_11 && num_hosts == 0)) {
      Refuse(400, "want exactly one Host header");
      return false;
    }
    // Two lengths for one body are how requests are smuggled past a proxy.
    if (message.count(http::field::content_length) > 1 || message.count(http::field::transfer_encoding) > 1 ||
        (message.count(http::field::content_length) > 0 &&
         message.count(http::field::transfer_encoding) > 0)) {
      Refuse(400, "want one of Content-Length and Transfer-Encoding");
      return false;
    }
    if (message.count(http::field::transfer_encoding) > 0 && (!parser_->chunked() || !is_http_11)) {
      Refuse(400, "want no Transfer-Encoding but chunked");
      return false;
    }
    if (shared_->options.check_head) {
      if (std::optional<HttpAnswer> answer = shared_->options.check_head(request_); answer.has_value()) {
        // Without a body the connection can be kept.
        if (parser_->is_done()) {
          BeginExchange(message.keep_alive(), is_http_11)->SendUnary(*std::move(answer));
        } else {
          RefuseWith(*std::move(answer));
        }
        return false;
      }
    }
    const absl::string_view expect = request_.Header("Expect");
    if (!expect.empty()) {
      if (!absl::EqualsIgnoreCase(expect, "100-continue")) {
        Refuse(417, "want no Expect but 100-continue");
        return false;
      }
      if (is_http_11 && !parser_->is_done() && in_.empty()) Send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    phase_ = Phase::kBody;
    body_deadline_ = asio::steady_timer::clock_type::now() + shared_->options.body_timeout;
    exchange_ = std::make_shared<Exchange>(shared_from_this(), shared_, message.keep_alive(), is_http_11);
    return true;
  }

  std::shared_ptr<Exchange> BeginExchange(bool keep_alive, bool chunked) {
    phase_ = Phase::kHandling;
    read_timer_.cancel();
    exchange_ = std::make_shared<Exchange>(shared_from_this(), shared_, keep_alive, chunked);
    if (request_.method == "HEAD") exchange_->OmitBody();
    return exchange_;
  }

  void Handle() {
    phase_ = Phase::kHandling;
    read_timer_.cancel();
    request_.body = std::move(parser_->get().body());
    parser_.reset();
    const std::shared_ptr<Exchange> exchange = exchange_;
    // Reading goes on, so that a client that leaves is noticed.
    StartRead();
    shared_->options.handler(std::move(request_), exchange);
  }

  void RefuseMalformed(const error_code& error) {
    if (error == http::error::body_limit) {
      Refuse(413, absl::StrCat("the body is larger than ", shared_->options.body_bytes_max, " bytes"));
    } else if (error == http::error::header_limit) {
      Refuse(431,
             absl::StrCat("the request's head is larger than ", shared_->options.header_bytes_max, " bytes"));
    } else {
      Refuse(400, absl::StrCat("not a valid HTTP request: ", error.message()));
    }
  }

  // Answers before the request was read to its end; the connection cannot be used again.
  void Refuse(int status, absl::string_view message) {
    RefuseWith(shared_->options.error_answer(status, message));
  }
  void RefuseWith(HttpAnswer answer) {
    parser_.reset();
    BeginExchange(/*keep_alive=*/false, /*chunked=*/true)->SendUnary(std::move(answer));
  }

  // ---- Writing ----------------------------------------------------------------------------------
  void StartWrite() {
    if (writing_ || phase_ == Phase::kClosed) return;
    if (written_ == being_written_.size()) {
      if (waiting_.empty()) return;
      being_written_.clear();
      written_ = 0;
      being_written_.swap(waiting_);
    }
    writing_ = true;
    write_timer_.expires_after(shared_->options.write_timeout);
    write_timer_.async_wait([self = shared_from_this()](error_code error) {
      if (!error && self->writing_ && self->write_timer_.expiry() <= asio::steady_timer::clock_type::now()) {
        self->Close(HttpGone::kSlowReader);
      }
    });
    socket_.async_write_some(asio::buffer(being_written_.data() + written_, being_written_.size() - written_),
                             [self = shared_from_this()](error_code error, size_t bytes) {
                               self->writing_ = false;
                               self->OnWritten(error, bytes);
                             });
  }

  void OnWritten(error_code error, size_t bytes) {
    if (phase_ == Phase::kClosed) return;
    if (error) {
      Close(HttpGone::kClient);
      return;
    }
    written_ += bytes;
    StartWrite();
    if (writing_) {
      if (exchange_ != nullptr) exchange_->Progress();
      return;
    }
    write_timer_.cancel();
    if (exchange_ != nullptr) exchange_->Progress();
    if (answered_) AfterAnswer();
  }

  void AfterAnswer() {
    answered_ = false;
    if (keep_alive_) {
      NextRequest();
      return;
    }
    // Closing with bytes unread would reset the connection, and the client could lose the answer.
    phase_ = Phase::kLinger;
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    in_.clear();
    SetReadTimer(shared_->options.linger_timeout);
    StartRead();
  }

  const std::shared_ptr<Shared> shared_;
  const asio::any_io_executor strand_;
  tcp::socket socket_;
  asio::steady_timer read_timer_;
  asio::steady_timer write_timer_;
  Phase phase_ = Phase::kIdle;
  std::optional<Parser> parser_;
  HttpRequest request_;
  std::shared_ptr<Exchange> exchange_;
  asio::steady_timer::time_point body_deadline_;
  std::vector<char> read_buffer_ = std::vector<char>(kReadBytes);  // for the one read under way
  std::string in_;                                                 // read and not parsed
  bool reading_ = false;
  uint64_t lingered_bytes_ = 0;
  std::string being_written_;  // of which written_ bytes are gone
  std::string waiting_;        // goes after it
  size_t written_ = 0;
  bool writing_ = false;
  bool answered_ = false;
  bool keep_alive_ = false;
};

// ---- Exchange ---------------------------------------------------------------------------------------

void Exchange::Post(std::function<void()> task) { asio::post(connection_->strand(), std::move(task)); }

void Exchange::After(milliseconds delay, std::function<void()> task) {
  if (over_) return;
  auto timer = std::make_shared<asio::steady_timer>(connection_->strand(), delay);
  timers_.push_back(timer);
  timer->async_wait([self = shared_from_this(), timer, task = std::move(task)](error_code error) {
    if (self->over_) return;
    self->timers_.erase(std::remove(self->timers_.begin(), self->timers_.end(), timer), self->timers_.end());
    if (!error) task();
  });
}

std::string Exchange::Head(const HttpAnswer& answer, bool streamed) {
  if (shared_->close_after_answers) keep_alive_ = false;
  if (streamed && !chunked_) keep_alive_ = false;
  std::string head = absl::StrCat("HTTP/1.1 ", answer.status, " ", HttpReason(answer.status), "\r\n");
  for (const HttpHeader& header : answer.headers)
    absl::StrAppend(&head, header.name, ": ", header.value, "\r\n");
  if (!streamed) {
    absl::StrAppend(&head, "Content-Length: ", answer.body.size(), "\r\n");
  } else if (chunked_) {
    absl::StrAppend(&head, "Transfer-Encoding: chunked\r\n");
  }
  absl::StrAppend(&head, "Connection: ", keep_alive_ ? "keep-alive" : "close", "\r\n\r\n");
  return head;
}

void Exchange::SendUnary(HttpAnswer answer) {
  if (over_) return;
  PRISM_CHECK(!begun_);
  begun_ = true;
  connection_->Send(absl::StrCat(Head(answer, /*streamed=*/false), omit_body_ ? "" : answer.body));
  Finish();
  connection_->AnswerComplete(keep_alive_);
}

void Exchange::BeginStream(HttpAnswer answer) {
  if (over_) return;
  PRISM_CHECK(!begun_);
  begun_ = true;
  connection_->Send(Head(answer, /*streamed=*/true));
  Write(answer.body);
}

void Exchange::Write(absl::string_view part) {
  if (over_ || part.empty()) return;
  PRISM_CHECK(begun_);
  if (buffered_bytes() > 2 * shared_->options.stream_buffer_bytes_max) {
    connection_->Close(HttpGone::kSlowReader);
    return;
  }
  if (chunked_) {
    connection_->Send(absl::StrCat(absl::Hex(part.size()), "\r\n", part, "\r\n"));
  } else {
    connection_->Send(part);
  }
}

void Exchange::End() {
  if (over_) return;
  PRISM_CHECK(begun_);
  if (chunked_) connection_->Send("0\r\n\r\n");
  Finish();
  connection_->AnswerComplete(keep_alive_);
}

void Exchange::Abort() {
  if (over_) return;
  Finish();
  connection_->Close(HttpGone::kServer);
}

size_t Exchange::buffered_bytes() const { return over_ ? 0 : connection_->buffered_bytes(); }

// ---- Server -------------------------------------------------------------------------------------------

class AsioServer final : public HttpServer {
 public:
  AsioServer(std::shared_ptr<Shared> shared, tcp::acceptor acceptor)
      : shared_(std::move(shared)),
        acceptor_(std::move(acceptor)),
        port_(acceptor_.local_endpoint().port()),
        retry_timer_(acceptor_.get_executor()),
        work_(asio::make_work_guard(shared_->io)) {
    for (int i = 0; i < shared_->options.num_threads; ++i) {
      threads_.emplace_back(absl::StrCat("http-", i), [shared = shared_] { shared->io.run(); });
    }
    asio::post(acceptor_.get_executor(), [this] { Accept(); });
  }
  ~AsioServer() override { Stop(); }

  int port() const override { return port_; }
  size_t num_connections() const override { return shared_->connections.value(); }
  size_t num_exchanges() const override { return shared_->exchanges.value(); }
  void CloseAfterAnswers() override { shared_->close_after_answers = true; }

  void Stop() override {
    if (shared_->stopping.exchange(true)) return;
    asio::post(acceptor_.get_executor(), [this] {
      error_code ignored;
      acceptor_.close(ignored);
      retry_timer_.cancel();
    });
    // Others may hold exchanges and post to them: that needs a thread until they let go.
    ForEachConnection([](Connection* connection) { connection->Shut(); });
    if (!shared_->connections.WaitZero(std::chrono::steady_clock::now() + shared_->options.stop_timeout)) {
      ForEachConnection([](Connection* connection) { connection->Close(HttpGone::kServer); });
      if (!shared_->connections.WaitZero(std::chrono::steady_clock::now() + shared_->options.stop_timeout)) {
        LogWarning("connections are still held at the end", {{"connections", shared_->connections.value()}});
      }
    }
    work_.reset();
    shared_->io.stop();
    threads_.clear();
  }

 private:
  // Runs `task` on the strand of each, soon.
  void ForEachConnection(void (*task)(Connection*)) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    for (const std::weak_ptr<Connection>& weak : connections_) {
      if (const std::shared_ptr<Connection> connection = weak.lock()) {
        asio::post(connection->strand(), [connection, task] { task(connection.get()); });
      }
    }
  }

  void Accept() {
    acceptor_.async_accept(asio::make_strand(shared_->io), [this](error_code error, tcp::socket socket) {
      if (shared_->stopping) return;
      if (error) {
        // Out of descriptors, most likely: waiting is all that helps.
        LogWarning("accept failed", {{"error", error.message()}});
        retry_timer_.expires_after(milliseconds(100));
        retry_timer_.async_wait([this](error_code cancelled) {
          if (!cancelled) Accept();
        });
        return;
      }
      Serve(std::move(socket));
      Accept();
    });
  }

  void Serve(tcp::socket socket) {
    auto connection = std::make_shared<Connection>(std::move(socket), shared_);
    {
      MutexLock lock(&mutex_);
      // Under the lock: Stop() finds the connection here, or it is none.
      if (shared_->stopping) return;
      if (connections_.size() >= swept_at_) {
        for (auto it = connections_.begin(); it != connections_.end();) {
          it = it->expired() ? connections_.erase(it) : std::next(it);
        }
        swept_at_ = 2 * connections_.size() + 64;
      }
      connections_.insert(connection);
    }
    asio::post(connection->strand(), [connection] { connection->Start(); });
  }

  const std::shared_ptr<Shared> shared_;
  tcp::acceptor acceptor_;
  const int port_;
  asio::steady_timer retry_timer_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::vector<NamedThread> threads_;
  Mutex mutex_;
  std::set<std::weak_ptr<Connection>, std::owner_less<std::weak_ptr<Connection>>> connections_
      ABSL_GUARDED_BY(mutex_);
  size_t swept_at_ ABSL_GUARDED_BY(mutex_) = 64;
};

}  // namespace

absl::string_view HttpRequest::Header(absl::string_view name) const {
  for (const HttpHeader& header : headers) {
    if (absl::EqualsIgnoreCase(header.name, name)) return header.value;
  }
  return "";
}

absl::string_view HttpRequest::Path() const { return absl::string_view(target).substr(0, target.find('?')); }

absl::string_view HttpReason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Payload Too Large";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Entity";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Status";
  }
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options) {
  PRISM_CHECK(options.handler && options.error_answer && options.num_threads >= 1);
  if (options.port < 0 || options.port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("port is ", options.port, ", want 0 .. 65535"));
  }
  const std::string address = absl::StrCat(options.host, ":", options.port);
  auto shared = std::make_shared<Shared>(std::move(options));
  error_code error;
  tcp::resolver resolver(shared->io);
  const auto found = resolver.resolve(shared->options.host, std::to_string(shared->options.port),
                                      tcp::resolver::passive, error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot listen on ", address, ": ", error.message()));
  }
  const tcp::endpoint endpoint = found.begin()->endpoint();
  tcp::acceptor acceptor(asio::make_strand(shared->io));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", error.message()));
  return std::make_unique<AsioServer>(std::move(shared), std::move(acceptor));
}

}  // namespace prism
