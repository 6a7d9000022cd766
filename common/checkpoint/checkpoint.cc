#include "common/checkpoint/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/checkpoint/safetensors.h"

namespace prism {
namespace {

constexpr char kHeadName[] = "lm_head.weight";
constexpr char kEmbeddingName[] = "model.language_model.embed_tokens.weight";

// Elements one part of a parallel loop makes or moves, about.
constexpr int64_t kPartElements = 1 << 18;
// Bytes of one leaf of the digest. Part of its definition.
constexpr int64_t kDigestChunkBytes = 16 << 20;
static_assert(kDigestChunkBytes == ReadAhead::kReadBytes, "what is read at once is hashed at once");
// Enough reads under way for any disk while some hash, and how far they run ahead.
constexpr int kReadAheadThreads = 16;
constexpr int64_t kReadAheadBytes = int64_t{4} << 30;

// Calls body(begin, end) over [0, count) in pieces of about `per_part`, on the pool if there is one.
void ForRanges(int64_t count, int64_t per_part, ParallelPool* pool,
               const std::function<void(int64_t begin, int64_t end)>& body) {
  per_part = std::max<int64_t>(per_part, 1);
  const int64_t parts = (count + per_part - 1) / per_part;
  const auto part = [&](int64_t index, int) {
    body(index * per_part, std::min(count, (index + 1) * per_part));
  };
  if (pool != nullptr) {
    pool->Run(parts, part);
    return;
  }
  for (int64_t index = 0; index < parts; ++index) part(index, 0);
}

int64_t RowElements(const Shape& shape) {
  int64_t elements = 1;
  for (int axis = 1; axis < shape.rank(); ++axis) elements *= shape[axis];
  return elements;
}

// ---- Copies of stored elements ---------------------------------------------------------------

// Bytes of a stored tensor: a view without the promise of alignment.
struct Bytes {
  const uint8_t* data = nullptr;
  DType dtype = DType::kF32;
  int64_t element_bytes() const { return static_cast<int64_t>(SizeOf(dtype)); }
};

// Transposes columns [begin, end) of `from` [rows, columns] into rows of `to` [columns, rows].
template <typename T>
void TransposeColumns(const uint8_t* from, int64_t rows, int64_t columns, int64_t begin, int64_t end, T* to) {
  // A block of 32 x 32 keeps both sides in the first-level cache.
  constexpr int64_t kBlock = 32;
  for (int64_t c0 = begin; c0 < end; c0 += kBlock) {
    for (int64_t r0 = 0; r0 < rows; r0 += kBlock) {
      for (int64_t c = c0; c < std::min(end, c0 + kBlock); ++c) {
        for (int64_t r = r0; r < std::min(rows, r0 + kBlock); ++r) {
          std::memcpy(&to[c * rows + r], from + (r * columns + c) * static_cast<int64_t>(sizeof(T)),
                      sizeof(T));
        }
      }
    }
  }
}

// `from` [rows, columns] into `to` [columns, rows], elements as they are.
void Transpose(Bytes from, int64_t rows, int64_t columns, ParallelPool* pool, void* to) {
  ForRanges(columns, kPartElements / std::max<int64_t>(rows, 1), pool, [&](int64_t begin, int64_t end) {
    if (from.element_bytes() == 2) {
      TransposeColumns(from.data, rows, columns, begin, end, static_cast<uint16_t*>(to));
    } else {
      TransposeColumns(from.data, rows, columns, begin, end, static_cast<uint32_t*>(to));
    }
  });
}

// f16 as f32, exactly; other types as they are.
Tensor Widened(Tensor tensor, ParallelPool* pool) {
  if (tensor.dtype() != DType::kF16) return tensor;
  Tensor wide = Tensor::Host(DType::kF32, tensor.shape());
  const Float16* const from = tensor.data<Float16>();
  float* const to = wide.data<float>();
  ForRanges(wide.shape().num_elements(), kPartElements, pool, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = static_cast<float>(from[i]);
  });
  return wide;
}

Tensor CopyOf(Bytes from, Shape shape) {
  Tensor tensor = Tensor::Host(from.dtype, std::move(shape));
  std::memcpy(tensor.view().raw(), from.data, static_cast<size_t>(tensor.view().size_bytes()));
  return tensor;
}

// `view` as f32, exactly.
Tensor ToF32(const TensorView& view, ParallelPool* pool) {
  Tensor wide = Tensor::Host(DType::kF32, view.shape());
  float* const to = wide.data<float>();
  ForRanges(view.num_elements(), kPartElements, pool, [&](int64_t begin, int64_t end) {
    if (view.dtype() == DType::kF32) {
      std::memcpy(to + begin, view.data<float>() + begin, static_cast<size_t>(end - begin) * sizeof(float));
    } else {
      const BFloat16* const from = view.data<BFloat16>();
      for (int64_t i = begin; i < end; ++i) to[i] = static_cast<float>(from[i]);
    }
  });
  return wide;
}

// The numbers of the configuration that change what the half computes from equal weights.
std::string DescribeNumbers(const ModelConfig& config, CheckpointPart part) {
  std::string text;
  if (part != CheckpointPart::kText) {
    const VisionConfig& v = config.vision;
    absl::StrAppend(&text, "vision heads ", v.num_heads, " patch ", v.patch_size, " ", v.temporal_patch_size,
                    " merge ", v.spatial_merge_size, " deepstack ",
                    absl::StrJoin(v.deepstack_visual_indexes, ","), "\n");
  }
  if (part != CheckpointPart::kVision) {
    const TextConfig& t = config.text;
    absl::StrAppend(&text, "text heads ", t.num_attention_heads, " ", t.num_key_value_heads, " ", t.head_dim,
                    " eps ", std::bit_cast<uint64_t>(t.rms_norm_eps), " theta ",
                    std::bit_cast<uint64_t>(t.rope_theta), " sections ", absl::StrJoin(t.mrope_section, ","),
                    " top ", t.num_experts_per_tok, "\n");
  }
  return text;
}

void HashNumber(uint64_t number, Sha256* hash) {
  uint8_t bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(number >> (8 * i));
  hash->Update(bytes, sizeof(bytes));
}

void HashTensorHead(absl::string_view name, absl::string_view dtype, const Shape& shape, Sha256* hash) {
  hash->Update(absl::StrCat(name, "\n", dtype, "\n", shape.ToString(), "\n"));
}

}  // namespace

// ---- State: where the weights are ------------------------------------------------------------

struct Checkpoint::State {
  // A stored tensor: its file and its entry there.
  struct Placed {
    const SafetensorsFile* file;
    const SafetensorsEntry* entry;
  };

  std::string directory;
  ModelConfig config;
  CheckpointOptions options;
  bool synthetic = false;
  std::vector<WeightSpec> weights;
  std::map<std::string, size_t, std::less<>> positions;  // published name -> index in `weights`
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  std::vector<Placed> placed;  // as the positions of `match` count
  WeightMatch match;
  // Digests of chunks that a read-ahead has read, by their first byte.
  Mutex mutex;
  std::map<const uint8_t*, Sha256Digest> chunk_digests ABSL_GUARDED_BY(mutex);
  // Whom tensors are waited for; while it reads past the page cache.
  std::atomic<const ReadAhead*> read_ahead{nullptr};

  absl::Status OpenFiles();
  absl::Status OpenShards(const SafetensorsIndex& index);
  absl::Status OpenStored();
  void OpenSynthetic();

  // The position in `weights`; lm_head.weight finds the embedding if they are tied.
  absl::StatusOr<size_t> Position(absl::string_view name) const;
  bool head_is_tied() const { return match.head_is_tied; }

  SyntheticTensor Synthetic(const WeightSpec& spec) const {
    // The generator asks what the configuration says, not whether a head is stored.
    return DescribeSynthetic(spec.name, spec.shape, config.tie_word_embeddings.value_or(false),
                             options.synthetic_seed);
  }
  const Placed& Stored(absl::string_view canonical) const {
    const auto it = match.stored.find(std::string(canonical));
    PRISM_CHECK(it != match.stored.end());
    return placed[it->second];
  }
  // Waits for a read-ahead that is about to read the bytes [offset, offset + size_bytes) of the tensor.
  void Await(const Placed& at, int64_t offset, int64_t size_bytes) const {
    const ReadAhead* const reading = read_ahead.load();
    if (reading != nullptr) reading->Await(at.file, at.entry->offset + offset, size_bytes);
  }
  static Bytes BytesOf(const Placed& at) { return {at.file->bytes(*at.entry), at.entry->dtype}; }

  // The layer whose experts `name` is, unless they are stored in the published layout.
  struct Rearranged {
    int64_t layer = -1;
    bool gate_up = false;
  };
  std::optional<Rearranged> FindRearranged(absl::string_view name) const;

  bool FindDigest(const uint8_t* chunk, Sha256Digest* digest) ABSL_LOCKS_EXCLUDED(mutex) {
    MutexLock lock(&mutex);
    const auto found = chunk_digests.find(chunk);
    if (found == chunk_digests.end()) return false;
    *digest = found->second;
    return true;
  }

  LoadedTensor StoredRows(const Placed& at, IndexRange rows, ParallelPool* pool) const;
  Tensor RearrangedExperts(Rearranged which, IndexRange experts, ParallelPool* pool) const;
  ExpertWeights StoredExpert(int64_t layer, int64_t expert, ParallelPool* pool) const;
  ExpertWeights SyntheticExpert(int64_t layer, int64_t expert, ParallelPool* pool) const;
  absl::StatusOr<LoadedTensor> Rows(size_t position, IndexRange rows, ParallelPool* pool) const;
};

absl::Status Checkpoint::State::OpenShards(const SafetensorsIndex& index) {
  std::set<std::string> wanted;
  for (const auto& [name, file] : index) {
    if (options.part == CheckpointPart::kWhole || PartOfName(CanonicalName(name)) == options.part)
      wanted.insert(file);
  }
  std::vector<std::string> absent;
  for (const std::string& name : wanted) {
    absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::Open(directory + "/" + name);
    if (absl::IsNotFound(file.status())) {
      absent.push_back(name);
      continue;
    }
    if (!file.ok()) return file.status();
    files.push_back(*std::move(file));
  }
  if (absent.empty()) return absl::OkStatus();
  const size_t count = absent.size();
  absent.resize(std::min(count, kMismatchesNamed));
  return absl::NotFoundError(absl::StrCat(directory, ": ", count, " of ", wanted.size(),
                                          " files that model.safetensors.index.json names are not there: ",
                                          absl::StrJoin(absent, ", "), count > absent.size() ? ", ..." : ""));
}

absl::Status Checkpoint::State::OpenFiles() {
  const std::string index_path = directory + "/model.safetensors.index.json";
  absl::StatusOr<std::string> index_text = ReadSmallFile(index_path, kSafetensorsIndexBytesMax);
  if (index_text.ok()) {
    PRISM_ASSIGN_OR_RETURN(const SafetensorsIndex index, ParseSafetensorsIndex(index_path, *index_text));
    return OpenShards(index);
  }
  if (!absl::IsNotFound(index_text.status())) return index_text.status();
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file =
      SafetensorsFile::Open(directory + "/model.safetensors");
  if (absl::IsNotFound(file.status())) {
    return absl::NotFoundError(absl::StrCat(
        directory, ": no weights: neither model.safetensors nor model.safetensors.index.json is there"));
  }
  if (!file.ok()) return file.status();
  files.push_back(*std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::State::OpenStored() {
  PRISM_RETURN_IF_ERROR(OpenFiles());
  std::vector<StoredWeight> stored;
  for (const std::unique_ptr<SafetensorsFile>& file : files) {
    for (const SafetensorsEntry& entry : file->entries()) {
      placed.push_back({file.get(), &entry});
      stored.push_back({entry.name, entry.dtype, entry.shape});
    }
  }
  PRISM_ASSIGN_OR_RETURN(match, MatchWeights(directory, config, options.part, stored));
  return absl::OkStatus();
}

void Checkpoint::State::OpenSynthetic() {
  synthetic = true;
  match.head_is_tied = config.tie_word_embeddings.value_or(false);
  match.expert_layouts.assign(static_cast<size_t>(config.text.num_hidden_layers), ExpertLayout::kInputMajor);
}

absl::StatusOr<size_t> Checkpoint::State::Position(absl::string_view name) const {
  const absl::string_view resolved = name == kHeadName && head_is_tied() ? kEmbeddingName : name;
  const auto it = positions.find(std::string(resolved));
  if (it != positions.end()) return it->second;
  return absl::NotFoundError(
      absl::StrCat(directory, ": no tensor ", name, " in the ", Name(options.part), " checkpoint"));
}

std::optional<Checkpoint::State::Rearranged> Checkpoint::State::FindRearranged(absl::string_view name) const {
  if (synthetic || options.part == CheckpointPart::kVision) return std::nullopt;
  for (int64_t layer = 0; layer < config.text.num_hidden_layers; ++layer) {
    if (match.expert_layouts[static_cast<size_t>(layer)] == ExpertLayout::kInputMajor) continue;
    if (name == GateUpName(layer)) return Rearranged{layer, true};
    if (name == DownName(layer)) return Rearranged{layer, false};
  }
  return std::nullopt;
}

// ---- Reading ---------------------------------------------------------------------------------

LoadedTensor Checkpoint::State::StoredRows(const Placed& at, IndexRange rows, ParallelPool* pool) const {
  const Shape& whole = at.entry->shape;
  std::vector<int64_t> dims(whole.dims().begin(), whole.dims().end());
  dims[0] = rows.size();
  const int64_t row_bytes = RowElements(whole) * static_cast<int64_t>(SizeOf(at.entry->dtype));
  Await(at, rows.begin * row_bytes, rows.size() * row_bytes);
  const Bytes bytes = {at.file->bytes(*at.entry) + rows.begin * row_bytes, at.entry->dtype};
  if (at.entry->dtype != DType::kF16 && at.file->aligned(*at.entry)) {
    return LoadedTensor(TensorView(const_cast<uint8_t*>(bytes.data), bytes.dtype, Shape(dims)));
  }
  Tensor copy = CopyOf(bytes, Shape(dims));
  at.file->Release(bytes.data, copy.view().size_bytes());
  return LoadedTensor(Widened(std::move(copy), pool));
}

ExpertWeights Checkpoint::State::StoredExpert(int64_t layer, int64_t expert, ParallelPool* pool) const {
  const int64_t h = config.text.hidden_size;
  const int64_t m = config.text.moe_intermediate_size;
  // [in, out] as stored at `expert` of a fused tensor, transposed to [out, in].
  const auto transposed = [&](const Placed& at, int64_t in, int64_t out) {
    Bytes bytes = BytesOf(at);
    const int64_t size_bytes = in * out * bytes.element_bytes();
    Await(at, expert * size_bytes, size_bytes);
    bytes.data += expert * size_bytes;
    Tensor tensor = Tensor::Host(bytes.dtype, Shape{out, in});
    Transpose(bytes, in, out, pool, tensor.view().raw());
    at.file->Release(bytes.data, size_bytes);
    return LoadedTensor(Widened(std::move(tensor), pool));
  };
  const auto sliced = [&](const Placed& at, int64_t out, int64_t in) {
    LoadedTensor one = StoredRows(at, {expert, expert + 1}, pool);
    return std::move(one).Reshaped(Shape{out, in});
  };
  switch (match.expert_layouts[static_cast<size_t>(layer)]) {
    case ExpertLayout::kInputMajor:
      return {transposed(Stored(GateUpName(layer)), h, 2 * m), transposed(Stored(DownName(layer)), m, h)};
    case ExpertLayout::kOutputMajor:
      return {sliced(Stored(GateUpName(layer)), 2 * m, h), sliced(Stored(DownName(layer)), h, m)};
    case ExpertLayout::kUnfused:
      break;
  }
  const Placed& gate = Stored(UnfusedExpertName(layer, expert, "gate_proj"));
  const Placed& up = Stored(UnfusedExpertName(layer, expert, "up_proj"));
  const Placed& down = Stored(UnfusedExpertName(layer, expert, "down_proj"));
  LoadedTensor gate_rows = StoredRows(gate, {0, m}, pool);
  LoadedTensor up_rows = StoredRows(up, {0, m}, pool);
  if (gate_rows.view().dtype() != up_rows.view().dtype()) {
    gate_rows = LoadedTensor(ToF32(gate_rows.view(), pool));
    up_rows = LoadedTensor(ToF32(up_rows.view(), pool));
  }
  Tensor both = Tensor::Host(gate_rows.view().dtype(), Shape{2 * m, h});
  const auto half_bytes = static_cast<size_t>(gate_rows.view().size_bytes());
  std::memcpy(both.view().raw(), gate_rows.view().raw(), half_bytes);
  std::memcpy(static_cast<uint8_t*>(both.view().raw()) + half_bytes, up_rows.view().raw(), half_bytes);
  for (const Placed* at : {&gate, &up}) at->file->Release(at->file->bytes(*at->entry), at->entry->size_bytes);
  return {LoadedTensor(std::move(both)), StoredRows(down, {0, h}, pool)};
}

ExpertWeights Checkpoint::State::SyntheticExpert(int64_t layer, int64_t expert, ParallelPool* pool) const {
  // The published matrix is [in, out]: an output's row is a column of it.
  const auto make = [&](const std::string& name) {
    const WeightSpec& spec = weights[positions.find(name)->second];
    const int64_t in = spec.shape[1];
    const int64_t out = spec.shape[2];
    const SyntheticTensor tensor = Synthetic(spec);
    Tensor matrix = Tensor::Host(DType::kBF16, Shape{out, in});
    BFloat16* const data = matrix.data<BFloat16>();
    ForRanges(out, kPartElements / in, pool, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        FillSynthetic(tensor, expert * in * out + row, out, in, data + row * in);
    });
    return LoadedTensor(std::move(matrix));
  };
  return {make(GateUpName(layer)), make(DownName(layer))};
}

Tensor Checkpoint::State::RearrangedExperts(Rearranged which, IndexRange experts, ParallelPool* pool) const {
  const WeightSpec& spec =
      weights[positions.find(which.gate_up ? GateUpName(which.layer) : DownName(which.layer))->second];
  const int64_t in = spec.shape[1];
  const int64_t out = spec.shape[2];
  // Unfused experts may be stored in different types; f32 then holds them all.
  const auto matrix_of = [&](int64_t e) {
    ExpertWeights expert = StoredExpert(which.layer, e, pool);
    return which.gate_up ? std::move(expert.gate_up) : std::move(expert.down);
  };
  DType dtype = DType::kBF16;
  for (int64_t e = experts.begin; e < experts.end && dtype == DType::kBF16; ++e)
    dtype = matrix_of(e).view().dtype();
  Tensor tensor = Tensor::Host(dtype, Shape{experts.size(), in, out});
  for (int64_t e = experts.begin; e < experts.end; ++e) {
    LoadedTensor matrix = matrix_of(e);
    if (matrix.view().dtype() != dtype) matrix = LoadedTensor(ToF32(matrix.view(), pool));
    const TensorView to = tensor.view().Rows(e - experts.begin, 1);
    Transpose({static_cast<const uint8_t*>(matrix.view().raw()), dtype}, out, in, pool, to.raw());
  }
  return tensor;
}

absl::StatusOr<LoadedTensor> Checkpoint::State::Rows(size_t position, IndexRange rows,
                                                     ParallelPool* pool) const {
  const WeightSpec& spec = weights[position];
  if (rows.begin < 0 || rows.end < rows.begin || rows.end > spec.shape[0]) {
    return absl::OutOfRangeError(absl::StrCat(spec.name, ": rows [", rows.begin, ", ", rows.end,
                                              "), want a range in [0, ", spec.shape[0], ")"));
  }
  if (!synthetic) {
    if (const std::optional<Rearranged> which = FindRearranged(spec.name)) {
      return LoadedTensor(RearrangedExperts(*which, rows, pool));
    }
    return StoredRows(Stored(spec.name), rows, pool);
  }
  std::vector<int64_t> dims(spec.shape.dims().begin(), spec.shape.dims().end());
  dims[0] = rows.size();
  Tensor tensor = Tensor::Host(DType::kBF16, Shape(dims));
  BFloat16* const data = tensor.data<BFloat16>();
  const SyntheticTensor description = Synthetic(spec);
  const int64_t first = rows.begin * RowElements(spec.shape);
  ForRanges(tensor.shape().num_elements(), kPartElements, pool, [&](int64_t begin, int64_t end) {
    FillSynthetic(description, first + begin, 1, end - begin, data + begin);
  });
  return LoadedTensor(std::move(tensor));
}

// ---- Checkpoint ------------------------------------------------------------------------------

absl::StatusOr<LoadFormat> ParseLoadFormat(absl::string_view text) {
  if (text == "auto") return LoadFormat::kAuto;
  if (text == "safetensors") return LoadFormat::kSafetensors;
  if (text == "synthetic") return LoadFormat::kSynthetic;
  return absl::InvalidArgumentError(
      absl::StrCat("load format is \"", text, "\", want \"auto\", \"safetensors\" or \"synthetic\""));
}

Tensor LoadedTensor::TakeOwned() && {
  if (owned_.present() && owned_.shape() == view_.shape()) return std::move(owned_);
  return CopyOf({static_cast<const uint8_t*>(view_.raw()), view_.dtype()}, view_.shape());
}

LoadedTensor LoadedTensor::Reshaped(Shape shape) && {
  LoadedTensor reshaped;
  reshaped.view_ = view_.Reshape(std::move(shape));
  reshaped.owned_ = std::move(owned_);
  return reshaped;
}

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory,
                                                             const CheckpointOptions& options) {
  auto state = std::make_unique<State>();
  state->directory = directory;
  state->options = options;
  PRISM_ASSIGN_OR_RETURN(state->config, ReadModelConfig(directory));
  if (options.format == LoadFormat::kSynthetic) {
    state->OpenSynthetic();
  } else {
    PRISM_RETURN_IF_ERROR(state->OpenStored());
  }
  state->weights = PublishedWeights(state->config, options.part, !state->head_is_tied());
  for (size_t i = 0; i < state->weights.size(); ++i) state->positions.emplace(state->weights[i].name, i);
  return std::unique_ptr<Checkpoint>(new Checkpoint(std::move(state)));
}

const ModelConfig& Checkpoint::config() const { return state_->config; }
const std::string& Checkpoint::directory() const { return state_->directory; }
CheckpointPart Checkpoint::part() const { return state_->options.part; }
bool Checkpoint::synthetic() const { return state_->synthetic; }
bool Checkpoint::head_is_tied() const { return state_->head_is_tied(); }
const std::vector<WeightSpec>& Checkpoint::weights() const { return state_->weights; }

absl::StatusOr<SyntheticWeight> Checkpoint::Synthetic(absl::string_view name) const {
  PRISM_CHECK(synthetic());
  PRISM_ASSIGN_OR_RETURN(const size_t position, state_->Position(name));
  const WeightSpec& spec = state_->weights[position];
  return SyntheticWeight{state_->Synthetic(spec), spec.shape};
}

absl::StatusOr<LoadedTensor> Checkpoint::Get(absl::string_view name, ParallelPool* pool) const {
  PRISM_ASSIGN_OR_RETURN(const size_t position, state_->Position(name));
  return state_->Rows(position, {0, state_->weights[position].shape[0]}, pool);
}

absl::StatusOr<LoadedTensor> Checkpoint::GetRows(absl::string_view name, IndexRange rows,
                                                 ParallelPool* pool) const {
  PRISM_ASSIGN_OR_RETURN(const size_t position, state_->Position(name));
  return state_->Rows(position, rows, pool);
}

absl::StatusOr<LoadedTensor> Checkpoint::GetColumns(absl::string_view name, IndexRange columns,
                                                    ParallelPool* pool) const {
  PRISM_ASSIGN_OR_RETURN(const size_t position, state_->Position(name));
  const WeightSpec& spec = state_->weights[position];
  if (spec.shape.rank() != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has shape ", spec.shape.ToString(), ", want a matrix"));
  }
  const int64_t num_rows = spec.shape[0];
  const int64_t num_columns = spec.shape[1];
  if (columns.begin < 0 || columns.end < columns.begin || columns.end > num_columns) {
    return absl::OutOfRangeError(absl::StrCat(name, ": columns [", columns.begin, ", ", columns.end,
                                              "), want a range in [0, ", num_columns, ")"));
  }
  if (columns.size() == num_columns) return state_->Rows(position, {0, num_rows}, pool);
  const Shape shape = {num_rows, columns.size()};
  const int64_t rows_per_part = kPartElements / std::max<int64_t>(columns.size(), 1);
  if (state_->synthetic) {
    const SyntheticTensor description = state_->Synthetic(spec);
    Tensor tensor = Tensor::Host(DType::kBF16, shape);
    BFloat16* const data = tensor.data<BFloat16>();
    ForRanges(num_rows, rows_per_part, pool, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        FillSynthetic(description, row * num_columns + columns.begin, 1, columns.size(),
                      data + row * columns.size());
      }
    });
    return LoadedTensor(std::move(tensor));
  }
  const State::Placed& at = state_->Stored(spec.name);
  state_->Await(at, 0, at.entry->size_bytes);
  const Bytes from = State::BytesOf(at);
  Tensor tensor = Tensor::Host(from.dtype, shape);
  auto* const to = static_cast<uint8_t*>(tensor.view().raw());
  const int64_t row_bytes = columns.size() * from.element_bytes();
  ForRanges(num_rows, rows_per_part, pool, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::memcpy(to + row * row_bytes,
                  from.data + (row * num_columns + columns.begin) * from.element_bytes(),
                  static_cast<size_t>(row_bytes));
    }
  });
  at.file->Release(from.data, at.entry->size_bytes);
  return LoadedTensor(Widened(std::move(tensor), pool));
}

absl::StatusOr<Tensor> Checkpoint::GetF32(absl::string_view name, ParallelPool* pool) const {
  PRISM_ASSIGN_OR_RETURN(LoadedTensor tensor, Get(name, pool));
  if (tensor.owned() && tensor.view().dtype() == DType::kF32) return std::move(tensor).TakeOwned();
  Tensor wide = ToF32(tensor.view(), pool);
  Release(std::move(tensor));
  return wide;
}

absl::StatusOr<ExpertWeights> Checkpoint::GetExpert(int64_t layer, int64_t expert, ParallelPool* pool) const {
  const TextConfig& text = state_->config.text;
  if (state_->options.part == CheckpointPart::kVision) {
    return absl::NotFoundError(absl::StrCat(state_->directory, ": no experts in the vision checkpoint"));
  }
  if (layer < 0 || layer >= text.num_hidden_layers || !text.IsMoeLayer(layer)) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, " of ", text.num_hidden_layers, " has no experts"));
  }
  if (expert < 0 || expert >= text.num_experts) {
    return absl::OutOfRangeError(absl::StrCat("layer ", layer, ": expert is ", expert,
                                              ", want a number in [0, ", text.num_experts, ")"));
  }
  return state_->synthetic ? state_->SyntheticExpert(layer, expert, pool)
                           : state_->StoredExpert(layer, expert, pool);
}

std::unique_ptr<ReadAhead> Checkpoint::StartReadAhead(bool direct) const {
  std::vector<ReadAhead::Piece> pieces;
  for (const std::unique_ptr<SafetensorsFile>& file : state_->files) {
    for (const SafetensorsEntry& entry : file->entries()) {
      const CheckpointPart part = PartOfName(CanonicalName(entry.name));
      if (state_->options.part != CheckpointPart::kWhole && state_->options.part != part) continue;
      if (entry.size_bytes > 0) pieces.push_back({file.get(), entry.offset, entry.size_bytes});
    }
  }
  if (pieces.empty()) return nullptr;
  const auto hash = [state = state_.get()](const ReadAhead::Piece& read) {
    const uint8_t* const data = read.file->bytes_at(read.offset);
    const Sha256Digest digest = Sha256Of(data, static_cast<size_t>(read.size_bytes));
    MutexLock lock(&state->mutex);
    state->chunk_digests[data] = digest;
  };
  auto read_ahead = std::make_unique<ReadAhead>(
      pieces, ReadAhead::Options{.num_threads = kReadAheadThreads,
                                 .window_bytes = kReadAheadBytes,
                                 .direct = direct,
                                 .on_read = hash,
                                 .on_end = [state = state_.get()] { state->read_ahead.store(nullptr); }});
  if (direct) state_->read_ahead.store(read_ahead.get());
  return read_ahead;
}

void Checkpoint::Release(LoadedTensor tensor) const {
  if (tensor.owned() || !tensor.view().present()) return;
  const auto* const data = static_cast<const uint8_t*>(tensor.view().raw());
  for (const std::unique_ptr<SafetensorsFile>& file : state_->files) {
    if (file->Holds(data)) {
      file->Release(data, tensor.view().size_bytes());
      return;
    }
  }
}

absl::StatusOr<std::string> Checkpoint::WeightsDigest(CheckpointPart part, ParallelPool* pool) const {
  State& state = *state_;
  if (state.options.part != CheckpointPart::kWhole && state.options.part != part) {
    return absl::InvalidArgumentError(absl::StrCat("the ", Name(state.options.part), " checkpoint has no ",
                                                   Name(part), " weights to digest"));
  }
  const auto held = [part](absl::string_view name) {
    return part == CheckpointPart::kWhole || PartOfName(name) == part;
  };
  Sha256 hash;
  hash.Update(state.synthetic ? "prism synthetic weights 1\n" : "prism weights 1\n");
  hash.Update(DescribeNumbers(state.config, part));
  if (state.synthetic) {
    HashNumber(state.options.synthetic_seed, &hash);
    HashNumber(state.config.tie_word_embeddings.value_or(false) ? 1 : 0, &hash);
    for (const auto& [name, position] : state.positions) {
      if (held(name)) HashTensorHead(name, Name(DType::kBF16), state.weights[position].shape, &hash);
    }
    return Hex(hash.Finish());
  }
  // The chunks of one tensor are hashed in parallel, then their digests in order.
  for (const auto& [name, position] : state.match.stored) {
    if (!held(name)) continue;
    const State::Placed& at = state.placed[position];
    HashTensorHead(name, Name(at.entry->dtype), at.entry->shape, &hash);
    const uint8_t* const data = at.file->bytes(*at.entry);
    const int64_t size_bytes = at.entry->size_bytes;
    std::vector<Sha256Digest> digests(
        static_cast<size_t>((size_bytes + kDigestChunkBytes - 1) / kDigestChunkBytes));
    ForRanges(size_bytes, kDigestChunkBytes, pool, [&](int64_t begin, int64_t end) {
      Sha256Digest& digest = digests[static_cast<size_t>(begin / kDigestChunkBytes)];
      if (state.FindDigest(data + begin, &digest)) return;
      digest = Sha256Of(data + begin, static_cast<size_t>(end - begin));
      at.file->Release(data + begin, end - begin);
    });
    for (const Sha256Digest& digest : digests) hash.Update(digest.data(), digest.size());
  }
  return Hex(hash.Finish());
}

}  // namespace prism
