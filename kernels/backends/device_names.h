// The names that --device takes.
//
// Thread safety: free functions.
#pragma once

#include <string>
#include <vector>

namespace prism {

inline constexpr int kDeviceIndexMax = 7;

// "auto", "cpu", "cuda", "cuda:0" to "cuda:7".
inline std::vector<std::string> DeviceNames() {
  std::vector<std::string> names = {"auto", "cpu", "cuda"};
  for (int index = 0; index <= kDeviceIndexMax; ++index) names.push_back("cuda:" + std::to_string(index));
  return names;
}

}  // namespace prism
