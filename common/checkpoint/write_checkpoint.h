// Writes synthetic weights as files, for measurements and tests that need a checkpoint on a disk.
//
// Thread safety: a free function.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/checkpoint/checkpoint.h"

namespace prism {

struct WriteCheckpointOptions {
  int64_t file_bytes_max = 5'000'000'000;  // of tensors, as Hugging Face cuts them; one tensor may have more
  int num_threads = 1;                     // that make and write
};

// Writes the checkpoint's tensors to `directory`, which is made: one model.safetensors, or as many files as
// it takes with their index, and copies of the source folder's other files. They are on the disk when this
// returns. InvalidArgument if the checkpoint is not synthetic; FailedPrecondition, naming the file, if the
// system refuses.
absl::Status WriteCheckpoint(const Checkpoint& checkpoint, const std::string& directory,
                             const WriteCheckpointOptions& options = {});

}  // namespace prism
