#include "tests/oracle/oracle_case.h"

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "services/vision_encoder/image/image_decoder.h"
#include "services/vision_encoder/image/resize.h"
#include "services/vision_encoder/image/smart_resize.h"
#include "services/vision_encoder/image/video_frames.h"

namespace prism {
namespace {

constexpr char kFolder[] = PRISM_SOURCE_DIR "/tests/oracle/";
constexpr PixelBounds kImageBounds = {.min_pixels = 65536, .max_pixels = 16777216};
constexpr PixelBounds kVideoBounds = {.min_pixels = 4096, .max_pixels = 25165824};

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

absl::StatusOr<RgbImage> DecodePicture(const std::string& name) {
  PRISM_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(absl::StrCat(kFolder, "images/", name)));
  return DecodeImage(bytes, {.alpha = AlphaMode::kDrop});
}

RgbImage Crop(const RgbImage& image, int64_t x, int64_t y, ImageSize size) {
  RgbImage crop(size);
  for (int64_t row = 0; row < size.height; ++row) {
    std::memcpy(crop.row(row), image.row(y + row) + 3 * x, static_cast<size_t>(3 * size.width));
  }
  return crop;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OracleCase>> OracleCase::Open(const std::string& model,
                                                             const std::string& name) {
  const std::string path = absl::StrCat(kFolder, "cases/", model, "/", name);
  PRISM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path + ".json"));
  const nlohmann::json json = nlohmann::json::parse(text);
  auto oracle = std::make_unique<OracleCase>();
  oracle->prompt_token_ids = json["prompt_token_ids"].get<std::vector<int32_t>>();
  oracle->rope_delta = json["rope_delta"];
  if (json.contains("images")) oracle->images = json["images"].get<std::vector<std::string>>();
  if (json.contains("videos")) {
    for (const nlohmann::json& video : json["videos"]) {
      oracle->videos.push_back({.pan_over = video["pan_over"],
                                .width = video["size"][0],
                                .height = video["size"][1],
                                .frames = video["frames"],
                                .step = video["step"]});
    }
  }
  oracle->greedy_ids = json["greedy"]["token_ids"].get<std::vector<int32_t>>();
  oracle->greedy_logprobs = json["greedy"]["logprobs"].get<std::vector<double>>();
  PRISM_ASSIGN_OR_RETURN(oracle->file_, SafetensorsFile::Open(path + ".safetensors"));
  return oracle;
}

TensorView OracleCase::tensor(const std::string& name) const {
  for (const SafetensorsEntry& entry : file_->entries()) {
    if (entry.name == name) return file_->view(entry);
  }
  return TensorView();
}

std::vector<std::string> OracleCase::tensor_names() const {
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : file_->entries()) names.push_back(entry.name);
  return names;
}

absl::StatusOr<PatchGrid> PatchesOfPicture(const std::string& name) {
  PRISM_ASSIGN_OR_RETURN(RgbImage image, DecodePicture(name));
  PRISM_ASSIGN_OR_RETURN(const ImageSize size, SmartResize(image.size(), kImageBounds));
  return Patchify(ResizeBicubic(std::move(image), size));
}

absl::StatusOr<std::vector<PatchGrid>> PatchesOf(const OracleCase& oracle) {
  std::vector<PatchGrid> grids;
  for (const std::string& name : oracle.images) {
    PRISM_ASSIGN_OR_RETURN(PatchGrid grid, PatchesOfPicture(name));
    grids.push_back(std::move(grid));
  }
  for (const OracleVideo& video : oracle.videos) {
    PRISM_ASSIGN_OR_RETURN(const RgbImage source, DecodePicture(video.pan_over));
    std::vector<RgbImage> frames;
    for (int64_t i = 0; i < video.frames; ++i) {
      frames.push_back(
          Crop(source, video.step * i, video.step * i / 2, {.height = video.height, .width = video.width}));
    }
    PRISM_ASSIGN_OR_RETURN(PatchGrid grid, PatchifyVideo(std::move(frames), kVideoBounds));
    grids.push_back(std::move(grid));
  }
  return grids;
}

}  // namespace prism
