// Stands in for a program of the cluster in tests of `prism up`: listens on --port and --metrics-port,
// answers every request there with 200, and ends on SIGTERM. Its own file name is the program it
// plays; variables make it misbehave:
//   FAKE_FAIL=NAME       that program logs an error and ends with code 1
//   FAKE_STUBBORN=NAME   that program ignores SIGTERM
//   FAKE_TAKEN=FILE      unless FILE exists: the router makes it and says its port is taken
//   FAKE_ENDS=FILE       each program adds its name to FILE when it ends
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace {

int Listen(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 || listen(fd, 16) != 0) return -1;
  return fd;
}

void Answer(int listener) {
  const int fd = accept(listener, nullptr, nullptr);
  char request[4096];
  if (read(fd, request, sizeof(request)) > 0) {
    const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    if (write(fd, answer.data(), answer.size()) < 0) std::perror("write");
  }
  close(fd);
}

bool IsNamed(const char* variable, const std::string& name) {
  const char* value = std::getenv(variable);
  return value != nullptr && name == value;
}

}  // namespace

int main(int argc, char** argv) {
  std::string name = argv[0];
  name = name.substr(name.rfind('/') + 1);
  int port = 0, metrics_port = 0;
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::string(argv[i]) == "--port") port = std::atoi(argv[i + 1]);
    if (std::string(argv[i]) == "--metrics-port") metrics_port = std::atoi(argv[i + 1]);
  }
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGTERM);
  sigprocmask(SIG_BLOCK, &watched, nullptr);
  const int signals = signalfd(-1, &watched, 0);
  if (IsNamed("FAKE_FAIL", name)) {
    std::fprintf(stderr,
                 "{\"level\":\"info\",\"message\":\"loading\"}\n"
                 "{\"level\":\"error\",\"message\":\"cannot start\",\"error\":\"3 tensors are missing\"}\n");
    return 1;
  }
  const char* const taken = std::getenv("FAKE_TAKEN");
  if (taken != nullptr && name == "prism-router" && access(taken, F_OK) != 0) {
    std::ofstream(taken) << "once";
    std::fprintf(stderr,
                 "{\"level\":\"error\",\"message\":\"cannot start\",\"error\":\"Address already in use\"}\n");
    return 1;
  }
  const int listeners[] = {Listen(port), Listen(metrics_port)};
  if (listeners[0] < 0 || listeners[1] < 0) {
    std::fprintf(stderr, "{\"level\":\"error\",\"message\":\"cannot start\",\"error\":\"%s\"}\n",
                 std::strerror(errno));
    return 1;
  }
  std::fprintf(stderr, "{\"level\":\"info\",\"message\":\"listening\"}\n");
  while (true) {
    pollfd polled[] = {{signals, POLLIN, 0}, {listeners[0], POLLIN, 0}, {listeners[1], POLLIN, 0}};
    poll(polled, 3, -1);
    if (polled[0].revents != 0) {
      signalfd_siginfo signal;
      if (read(signals, &signal, sizeof(signal)) < 0) return 2;
      if (IsNamed("FAKE_STUBBORN", name)) continue;
      if (const char* ends = std::getenv("FAKE_ENDS")) std::ofstream(ends, std::ios::app) << name << "\n";
      return 0;
    }
    for (int i = 0; i < 2; ++i) {
      if (polled[i + 1].revents != 0) Answer(listeners[i]);
    }
  }
}
