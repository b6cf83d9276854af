// A tensor's shape, without memory of its own: every call of a node makes dozens of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace allmem {

class Shape {
 public:
  static constexpr size_t kMostAxes = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) {  // at most kMostAxes
    for (const int64_t size : sizes) sizes_[axes_++] = size;
  }

  // Sets the number of axes, at most kMostAxes.
  void resize(size_t axes) { axes_ = axes; }

  size_t size() const { return axes_; }
  bool empty() const { return axes_ == 0; }
  int64_t* data() { return sizes_; }
  const int64_t* data() const { return sizes_; }
  int64_t& operator[](size_t axis) { return sizes_[axis]; }
  int64_t operator[](size_t axis) const { return sizes_[axis]; }
  int64_t& back() { return sizes_[axes_ - 1]; }
  int64_t back() const { return sizes_[axes_ - 1]; }

 private:
  size_t axes_ = 0;
  int64_t sizes_[kMostAxes] = {};
};

}  // namespace allmem
