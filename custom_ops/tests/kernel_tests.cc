// Runs the CPU kernels on cases from files, without ONNX Runtime, and compares with what the files
// expect. Built with sanitizers it finds reads and writes outside of arrays: every array is a heap
// block of exactly its size.
//
//     allmem_kernel_tests FILE...
//
// A file holds cases, written by tests/ops/test_native_sanitized.py:
//     case NAME OPERATOR NUMBERS        then NUMBERS lines "key value"
//     array NAME BYTES                  then the bytes and a line feed, for every input
//     expect NAME BYTES TOLERANCE       likewise the outputs, rings in the type of the input
//     end
// Every case runs in and out of place, with one worker and with several, on each kind of kernels
// that this CPU has. Conversion of float16 is tried on every value there is, handing out of tasks on
// some numbers of them.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels.h"

namespace {

using allmem::AttentionArgs;
using allmem::CpuKernels;
using allmem::MemoryArgs;
using allmem::Parallel;
using allmem::ProductArgs;

// A heap block of exactly `size` bytes, so that the sanitizer sees one byte too far.
class Block {
 public:
  explicit Block(size_t size) : size_(size), data_(static_cast<char*>(std::malloc(size ? size : 1))) {}
  Block(const Block& other) : Block(other.size_) { std::memcpy(data_, other.data_, size_); }
  Block& operator=(const Block&) = delete;
  ~Block() { std::free(data_); }

  char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  char* data_;
};

struct Expected {
  std::shared_ptr<Block> values;
  double tolerance;
};

[[noreturn]] void broken(const std::string& why) {
  std::cerr << "broken case file: " << why << "\n";
  std::exit(2);
}

struct Case {
  std::string name, op;
  std::map<std::string, std::string> numbers;
  std::map<std::string, std::shared_ptr<Block>> arrays;
  std::map<std::string, Expected> expected;

  const std::string& text(const std::string& key) const {
    const auto found = numbers.find(key);
    if (found == numbers.end()) broken("case " + name + " has no number '" + key + "'");
    return found->second;
  }
  int64_t whole(const std::string& key) const { return std::stoll(text(key)); }
  // Numbers with commas between them.
  std::vector<int64_t> integers(const std::string& key) const {
    std::vector<int64_t> numbers;
    std::istringstream stream(text(key));
    for (std::string one; std::getline(stream, one, ',');) numbers.push_back(std::stoll(one));
    return numbers;
  }
};

std::shared_ptr<Block> read_block(std::istream& file, size_t bytes) {
  auto block = std::make_shared<Block>(bytes);
  file.get();  // the line feed after the header
  file.read(block->data(), static_cast<std::streamsize>(bytes));
  if (!file) broken("an array is cut short");
  return block;
}

bool read_case(std::istream& file, Case& out) {
  std::string word;
  if (!(file >> word)) return false;
  if (word != "case") broken("expected 'case', found '" + word + "'");
  out = Case{};
  int count = 0;
  file >> out.name >> out.op >> count;
  for (int i = 0; i < count; ++i) {
    std::string key, value;
    file >> key >> value;
    out.numbers[key] = value;
  }
  while (file >> word && word != "end") {
    std::string name;
    size_t bytes = 0;
    file >> name >> bytes;
    if (word == "array") {
      out.arrays[name] = read_block(file, bytes);
    } else if (word == "expect") {
      double tolerance = 0;
      file >> tolerance;
      out.expected[name] = {read_block(file, bytes), tolerance};
    } else {
      broken("unknown line '" + word + "'");
    }
  }
  return true;
}

// Threads of its own for every call: slow, and enough to show a race to a tool that looks for one.
void run_threads(void*, size_t count, void (*fn)(void*, size_t), void* data) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) threads.emplace_back(fn, data, i);
  for (std::thread& thread : threads) thread.join();
}

// The arrays of one run: inputs copied, outputs fresh or, for states in place, the input itself.
class Arrays {
 public:
  Arrays(const Case& one, bool in_place) : in_place_(in_place) {
    for (const auto& [name, block] : one.arrays) blocks_[name] = std::make_shared<Block>(*block);
    for (const auto& [name, want] : one.expected) {
      const std::string past = "past_" + name.substr(name.find('_') + 1);
      const bool state = name.rfind("present_", 0) == 0;
      if (state && in_place_) {
        blocks_[name] = blocks_.at(past);
        continue;
      }
      blocks_[name] = std::make_shared<Block>(want.values->size());
      std::memset(blocks_[name]->data(), 0xff, want.values->size());  // NaN until written
    }
  }

  bool has(const std::string& name) const { return blocks_.count(name) > 0; }
  void* raw(const std::string& name) const { return blocks_.at(name)->data(); }
  float* floats(const std::string& name) const { return reinterpret_cast<float*>(raw(name)); }
  const Block& block(const std::string& name) const { return *blocks_.at(name); }

 private:
  bool in_place_;
  std::map<std::string, std::shared_ptr<Block>> blocks_;
};

allmem::Element element_named(const std::string& name) {
  if (name == "float32") return allmem::Element::kFloat32;
  if (name == "float16") return allmem::Element::kFloat16;
  if (name == "int8") return allmem::Element::kInt8;
  broken("unknown element type '" + name + "'");
}

// Gives every member what the case has under its name; what an array's is, stays null without one.
template <typename Args>
void fill(const Case& one, const Arrays& arrays, Args& args) {
  args.each([&](const std::string& name, auto& member) {
    using Member = std::remove_reference_t<decltype(member)>;
    if constexpr (std::is_pointer_v<Member>) {
      if (arrays.has(name)) member = static_cast<Member>(static_cast<void*>(arrays.raw(name)));
    } else if constexpr (std::is_same_v<Member, allmem::Element>) {
      member = element_named(one.text(name));
    } else if constexpr (std::is_same_v<Member, allmem::PerHead>) {
      const std::vector<int64_t> numbers = one.integers(name);
      member.set(numbers.data(), static_cast<int64_t>(numbers.size()));
    } else if constexpr (std::is_floating_point_v<Member>) {
      member = static_cast<Member>(std::stod(one.text(name)));
    } else {
      member = static_cast<Member>(one.whole(name));
    }
  });
}

AttentionArgs attention_args(const Case& one, const Arrays& arrays) {
  AttentionArgs args{};
  fill(one, arrays, args);
  return args;
}

MemoryArgs memory_args(const Case& one, const Arrays& arrays) {
  MemoryArgs args{};
  fill(one, arrays, args);
  return args;
}

ProductArgs product_args(const Case& one, const Arrays& arrays) {
  ProductArgs args{};
  fill(one, arrays, args);  // the attributes
  args.rows = one.whole("rows");
  args.inputs = one.whole("inputs");
  args.x_width = one.whole("x_width");
  args.activation = allmem::Element::kFloat32;
  args.x = arrays.floats("x");
  args.numbers = static_cast<const uint8_t*>(arrays.raw("numbers"));
  args.scales = arrays.raw("scales");
  args.bias = one.arrays.count("bias") ? arrays.floats("bias") : nullptr;
  args.x_more = args.x_width < args.row_width() ? arrays.floats("x_more") : nullptr;
  args.output = arrays.floats("y");
  args.output_more = args.first_width < args.width ? arrays.floats("y_more") : nullptr;
  return args;
}

// A value of a float16, by its definition.
double half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  return exponent ? sign * std::ldexp(1024 + mantissa, exponent - 25)
                  : sign * std::ldexp(mantissa, -24);
}

double value_at(const Block& block, size_t index, allmem::Element element) {
  if (element == allmem::Element::kInt8) return static_cast<signed char>(block.data()[index]);
  if (element == allmem::Element::kFloat16) {
    uint16_t bits;
    std::memcpy(&bits, block.data() + 2 * index, 2);
    return half_value(bits);
  }
  float value;
  std::memcpy(&value, block.data() + 4 * index, 4);
  return value;
}

// Relative root mean square error; NaN anywhere gives NaN.
double error_of(const Block& got, const Block& want, allmem::Element element) {
  const bool half = element == allmem::Element::kFloat16;
  const size_t count = want.size() / (element == allmem::Element::kInt8 ? 1 : half ? 2 : 4);
  double difference = 0, truth = 0;
  for (size_t i = 0; i < count; ++i) {
    const double a = value_at(got, i, element), b = value_at(want, i, element);
    difference += (a - b) * (a - b);
    truth += b * b;
  }
  return count ? std::sqrt(difference / (truth > 1e-60 ? truth : 1e-60)) : 0.0;
}

template <typename Args>
void run(const Args& args, size_t (*measure)(const Args&, int),
         void (*kernel)(const Args&, const Parallel&, void*), int workers) {
  const size_t bytes = measure(args, workers);
  // Exactly what was asked for; its start is aligned as promised, its end is guarded.
  void* scratch = nullptr;
  const size_t rounded = (bytes + allmem::kScratchAlignment - 1) / allmem::kScratchAlignment *
                         allmem::kScratchAlignment;
  if (rounded > 0) {
    scratch = std::aligned_alloc(allmem::kScratchAlignment, rounded);
    std::memset(scratch, 0xff, rounded);  // NaN: nothing may be taken for zero
  }
  kernel(args, Parallel{run_threads, nullptr, workers}, scratch);
  std::free(scratch);
}

int check(const Case& one, const CpuKernels& kernels, bool in_place, int workers) {
  const Arrays arrays(one, in_place);
  if (one.op == "attention") {
    run(attention_args(one, arrays), kernels.attention_scratch, kernels.attention, workers);
  } else if (one.op == "product") {
    allmem::ProductArgs args = product_args(one, arrays);
    args.one_stream = in_place;  // a product has no state to be in place
    run(args, kernels.product_scratch, kernels.product, workers);
  } else {
    run(memory_args(one, arrays), kernels.memory_scratch, kernels.memory, workers);
  }
  int failures = 0;
  for (const auto& [name, want] : one.expected) {
    const bool ring = name == "present_key" || name == "present_value";
    const allmem::Element element = ring ? element_named(one.text("cache")) : allmem::Element::kFloat32;
    const double error = error_of(arrays.block(name), *want.values, element);
    if (!(error <= want.tolerance)) {
      std::cerr << one.op << " " << one.name << " (" << kernels.name
                << (in_place ? ", in place, " : ", ") << workers << " workers): " << name
                << " is off by " << error << ", allowed " << want.tolerance << "\n";
      ++failures;
    }
  }
  return failures;
}

// Widens every float16 there is and narrows it again; `count` leaves a tail for every vector.
int check_halves(const CpuKernels& kernels, size_t count) {
  const Block halves(2 * count), widened(4 * count), narrowed(2 * count);
  const auto bits = [&](const Block& block, size_t i) {
    uint16_t value;
    std::memcpy(&value, block.data() + 2 * i, 2);
    return value;
  };
  for (size_t i = 0; i < count; ++i) {
    const uint16_t value = static_cast<uint16_t>(i);
    std::memcpy(halves.data() + 2 * i, &value, 2);
  }
  const Parallel parallel{run_threads, nullptr, 3};
  float* const floats = reinterpret_cast<float*>(widened.data());
  kernels.widen(halves.data(), floats, static_cast<int64_t>(count), parallel);
  kernels.narrow(floats, narrowed.data(), static_cast<int64_t>(count), parallel);
  int failures = 0;
  for (size_t i = 0; i < count; ++i) {
    const double want = half_value(bits(halves, i));
    const bool nan = std::isnan(want);
    const bool wide = nan ? std::isnan(floats[i]) : floats[i] == want;
    const bool narrow = nan ? std::isnan(half_value(bits(narrowed, i)))
                            : bits(narrowed, i) == bits(halves, i);
    failures += !wide || !narrow;
  }
  if (failures > 0) {
    std::cerr << failures << " of " << count << " float16 are converted wrongly (" << kernels.name
              << ")\n";
  }
  return failures;
}

using HandOut = void (*)(const Parallel&, int64_t, void (*)(void*, int64_t, int), void*);

// Every task must be done once, by a worker that there is.
int check_hand_out(HandOut hand_out, int64_t tasks, int workers) {
  struct Counts {
    std::vector<std::atomic<int>> done;
    std::atomic<int> strangers;
    int workers;
  } counts{std::vector<std::atomic<int>>(static_cast<size_t>(tasks)), {0}, workers};
  hand_out(
      Parallel{run_threads, nullptr, workers}, tasks,
      [](void* data, int64_t task, int worker) {
        Counts& found = *static_cast<Counts*>(data);
        found.done[static_cast<size_t>(task)].fetch_add(1);
        found.strangers += worker < 0 || worker >= found.workers;
      },
      &counts);
  int failures = counts.strangers;
  for (const auto& times : counts.done) failures += times != 1;
  if (failures > 0) {
    std::cerr << failures << " of " << tasks << " tasks are handed out wrongly to " << workers
              << " workers\n";
  }
  return failures;
}

}  // namespace

int main(int count, char** names) {
  if (count < 2) {
    std::cerr << "usage: allmem_kernel_tests FILE...\n";
    return 2;
  }
  std::vector<const CpuKernels*> all;
  for (const char* path : {"generic", "avx2", "avx512", "avx512vnni"}) {
    setenv("ALLMEM_CPU", path, 1);
    const char* problem = nullptr;
    const CpuKernels* kernels = allmem::cpu_kernels(&problem);
    if (kernels != nullptr) {
      all.push_back(kernels);
    } else {
      std::cout << "not run: " << problem << "\n";
    }
  }
  int cases = 0, failures = 0;
  for (int i = 1; i < count; ++i) {
    std::ifstream file(names[i], std::ios::binary);
    if (!file) broken(std::string("cannot open ") + names[i]);
    Case one;
    while (read_case(file, one)) {
      ++cases;
      for (const CpuKernels* kernels : all) {
        failures += check(one, *kernels, false, 1);
        failures += check(one, *kernels, true, 3);
      }
    }
  }
  for (const CpuKernels* kernels : all) {
    for (const size_t size : {0, 1, 17, 40007, 65536}) failures += check_halves(*kernels, size);
  }
  for (const HandOut hand_out : {allmem::run_tasks, allmem::run_shares}) {
    for (const int64_t tasks : {0, 1, 2, 7, 1000}) {
      for (const int workers : {1, 2, 5, 64}) failures += check_hand_out(hand_out, tasks, workers);
    }
  }
  std::cout << cases << " cases on";
  for (const CpuKernels* kernels : all) std::cout << " " << kernels->name;
  std::cout << ": " << failures << " failures\n";
  return failures == 0 && cases > 0 ? 0 : 1;
}
