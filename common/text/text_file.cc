#include "common/text/text_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace prism {
namespace {

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t bytes_max) {
  const std::unique_ptr<std::FILE, FileCloser> file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) return absl::ErrnoToStatus(errno, path);
  struct stat about;
  if (fstat(fileno(file.get()), &about) != 0) return absl::ErrnoToStatus(errno, path);
  if (!S_ISREG(about.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  const auto size = static_cast<size_t>(about.st_size);
  if (size > bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", size, " bytes, at most ", bytes_max));
  }
  std::string content(size, '\0');
  const size_t read = std::fread(content.data(), 1, size, file.get());
  if (read != size) {
    return absl::DataLossError(absl::StrCat(path, ": read ", read, " of ", size, " bytes"));
  }
  return content;
}

}  // namespace prism
