#include <clocale>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <string>

#include "arguments.h"
#include "denoiser.h"
#include "error.h"
#include "json.h"
#include "json_writer.h"
#include "metrics.h"
#include "number_text.h"
#include "safetensors.h"
#include "sampler.h"
#include "sha256.h"

namespace {

int failures = 0;

void check(bool holds, const char* what, int line) {
  if (holds) return;
  ++failures;
  std::fprintf(stderr, "line %d: %s\n", line, what);
}

#define CHECK(condition) check((condition), #condition, __LINE__)

bool refused(const std::function<void()>& body) {
  try {
    body();
  } catch (const dq::Error&) {
    return true;
  }
  return false;
}

void test_sha256() {
  CHECK(dq::sha256("", 0) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(dq::sha256("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string long_text(1'000'000, 'a');
  CHECK(dq::sha256(long_text.data(), long_text.size()) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

void test_json_reader() {
  const dq::json::Value value = dq::json::parse(R"( {"a": [1, -2.5e1, true, null], "b": "\u00e9\ud83d\ude00\n"} )");
  CHECK(value.list_at("a").size() == 4);
  CHECK(value.list_at("a")[0].integer("a") == 1);
  CHECK(value.list_at("a")[1].number("a") == -25);
  CHECK(value.text_at("b") == "\xC3\xA9\xF0\x9F\x98\x80\n");
  CHECK(value.find("c") == nullptr);
  CHECK(refused([&] { value.at("c"); }));
  CHECK(refused([&] { value.number_at("b"); }));
  CHECK(refused([&] { value.list_at("a")[1].integer("a"); }));
  CHECK(dq::json::parse("9223372036854775807").integer("x") == std::numeric_limits<std::int64_t>::max());
  CHECK(refused([] { dq::json::parse("9223372036854775808").integer("x"); }));
  for (const char* text : {"", " ", "01", "1.", ".5", "+1", "-", "1e", "1e999", "tru", "nul", "[1,]", "[,]", "{\"a\":1,}",
                           "{\"a\" 1}", "{a:1}", "{\"a\":1,\"a\":2}", "\"", "\"\t\"", "\"\\x\"", "\"\\u12\"",
                           "\"\\ud800\"", "\"\\udc00\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "\"\xF5\"", "1 2", "[1}"}) {
    check(refused([&] { dq::json::parse(text); }), text, __LINE__);
  }
  CHECK(refused([] { dq::json::parse(std::string_view("1\0", 2)); }));
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(!refused([&] { dq::json::parse(nested(dq::json::max_depth)); }));
  CHECK(refused([&] { dq::json::parse(nested(dq::json::max_depth + 2)); }));
}

void test_json_writer() {
  dq::json::Writer json;
  json.begin_object().key("a\"\x01").value(0.1).key("b").begin_list().end_list();
  json.key("c").value(std::numeric_limits<double>::quiet_NaN()).key("d").value("\xFF").key("e").value(true).end_object();
  CHECK(json.text() ==
        "{\n \"a\\\"\\u0001\": 0.1,\n \"b\": [],\n \"c\": null,\n \"d\": \"\xEF\xBF\xBD\",\n \"e\": true\n}");
  for (const double number : {1.0 / 3, 1e300, 5e-324, -0.0, 123456789.0, 2.2250738585072014e-308}) {
    dq::json::Writer one;
    CHECK(dq::json::parse(one.value(number).text()).number("x") == number);
  }
}

/// A host may have set a locale that writes a comma; see main().
void test_numbers_have_a_point_in_every_locale() {
  const std::string before = std::localeconv()->decimal_point;
  const auto numbers = dq::json::parse("[0.5, 7.25, -1.5e-3]").list("x");
  CHECK(numbers[0].number("x") == 0.5 && numbers[1].number("x") == 7.25 && numbers[2].number("x") == -1.5e-3);
  CHECK(dq::json::Writer().value(7.25).text() == "7.25");
  CHECK(dq::json::parse("5e-324").number("x") == std::numeric_limits<double>::denorm_min());
  CHECK(dq::json::parse("0." + std::string(400, '3')).number("x") == 1.0 / 3);
  CHECK(dq::in_short(2.5) == "2.5" && dq::in_short(1e300) == "1e+300");
  const auto guidance_of = [](const char* text) { return dq::parse_arguments({"--bundle", "b", "--report", "r", "--guidance", text}).guidance; };
  CHECK(guidance_of("7.5") == 7.5);
  CHECK(refused([&] { guidance_of("7,5"); }));
  CHECK(before == std::localeconv()->decimal_point);
}

void test_safetensors() {
  const dq::FloatTensor x{{2, 3}, {1, 2, 3, 4, 5, 6}}, nothing{{0, 4}, {}};
  const dq::TensorFile file = dq::TensorFile::parse(dq::safetensors_of({{"x", &x}, {"nothing", &nothing}}));
  CHECK(file.floats("x").values == x.values);
  CHECK(file.floats("x").shape == x.shape);
  CHECK(file.floats("nothing").values.empty());
  CHECK(refused([&] { file.integers("x"); }));
  CHECK(refused([&] { file.floats("y"); }));
  CHECK(refused([] { dq::count_elements({std::numeric_limits<std::int64_t>::max(), 2}); }));
  CHECK(dq::count_elements({}) == 1);
}

void test_metrics() {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(dq::median({3, 1, 2}) == 2);
  CHECK(dq::median({4, 1, 2, 3}) == 2.5);
  CHECK(dq::median({1, nan, 2}) != dq::median({1, nan, 2}));
  const float x[] = {3, 4}, zero[] = {0, 0};
  CHECK(dq::relative_error(zero, x, 2) == 1);
  CHECK(dq::psnr(x, x, 1, 2) == 100);
  CHECK(dq::psnr(zero, zero, 4, 2) == 100);
}

void test_sampler() {
  const dq::Table table = dq::Table::from_json(dq::json::parse(
      R"({"timesteps": [9, 5], "a": [[2, 0], [1, 3]], "b": [[1], [-1]], "c": [0, 0.5], "input_scale": [1, 2]})"));
  CHECK(table.is_stochastic());
  const float noise = 4;
  const auto run = dq::rollout(table, {1.0F}, [&](std::size_t) { return &noise; },
                               [](const std::vector<float>& x, std::size_t) { return std::vector<float>{10 * x[0]}; });
  CHECK(run[1][0] == 2 * 1 + 10);
  CHECK(run[2][0] == 12 + 3 * 1 - 10 * 2 * 12 + 0.5F * 4);
  for (const char* text : {
           R"({"timesteps": [], "a": [], "b": [], "c": [], "input_scale": []})",
           R"({"timesteps": [1], "a": [[1, 1]], "b": [[1]], "c": [0], "input_scale": [1]})",
           R"({"timesteps": [1], "a": [[1]], "b": [[1], [1]], "c": [0], "input_scale": [1]})",
           R"({"timesteps": [1], "a": [[1]], "b": [[1e39]], "c": [0], "input_scale": [1]})",
       }) {
    check(refused([&] { dq::Table::from_json(dq::json::parse(text)); }), text, __LINE__);
  }
}

/// Answers twice what it is given, and keeps it.
class Doubling : public dq::Network {
 public:
  void execute(std::size_t, const std::vector<dq::Input>& inputs, std::vector<float>& output) override {
    given.resize(output.size());
    std::memcpy(given.data(), inputs[0].data, inputs[0].bytes);
    for (std::size_t i = 0; i < output.size(); ++i) output[i] = 2 * given[i];
  }

  dq::Runtime runtime() const override { return {}; }

  std::vector<float> given;
};

dq::Correction read_correction(const char* text) { return dq::Correction::from_json(dq::json::parse(text), 2); }

void test_correction() {
  dq::Bundle bundle;
  bundle.output = {"output", "float32", {1, 2, 1, 2}};
  bundle.inputs = {{"sample", "float32", {1, 2, 1, 2}}, {"timestep", "float32", {1}}};
  bundle.group_of_step = {0, 0};
  bundle.methods = {"forward"};
  bundle.table.timesteps = {9, 5};
  bundle.table.input_scale = {3, 1};
  bundle.table.correction = read_correction(
      R"({"input_shift": [[1, -1], [0, 10]], "output_scale": [[1, 1], [3, 0.5]], "output_shift": [[0, 0], [7, -7]]})");
  dq::Reference reference;
  reference.start = {{1, 2, 1, 2}, {1, 2, 3, 4}};
  reference.elements = 4;
  reference.cond.resize(2);
  Doubling network;
  dq::Denoiser denoiser(bundle, reference, network);
  CHECK((denoiser({1, 2, 3, 4}, 1, 0) == std::vector<float>{13, 19, 6, 7}));
  CHECK((network.given == std::vector<float>{1, 2, 13, 14}));
  denoiser.warm_up();
  CHECK((network.given == std::vector<float>{4, 7, 8, 11}));
  bundle.table.correction.reset();
  CHECK((denoiser({1, 2, 3, 4}, 1, 0) == std::vector<float>{2, 4, 6, 8}));
}

void test_damaged_corrections() {
  CHECK(read_correction(R"({"input_shift": [[1], [2]], "output_scale": [[3], [4]], "output_shift": [[5], [6]]})").channels() == 1);
  for (const char* text : {
           "null", "[]", "{}",
           R"({"input_shift": [[1], [2]], "output_scale": [[3], [4]]})",
           R"({"input_shift": [[1], [2]], "output_scale": [[3], [4]], "output_shift": [[5], [6]], "more": 1})",
           R"({"input_shift": [[1], [2]], "output_scale": [[3], [4]], "shift": [[5], [6]]})",
           R"({"input_shift": [[1]], "output_scale": [[3]], "output_shift": [[5]]})",
           R"({"input_shift": [[1], [2]], "output_scale": [[3], [4]], "output_shift": [[5], [6], [7]]})",
           R"({"input_shift": [[1], [2, 2]], "output_scale": [[3], [4]], "output_shift": [[5], [6]]})",
           R"({"input_shift": [[1], [2]], "output_scale": [[3], [4]], "output_shift": [[5, 5], [6, 6]]})",
           R"({"input_shift": [[], []], "output_scale": [[], []], "output_shift": [[], []]})",
           R"({"input_shift": [[1], [1e39]], "output_scale": [[3], [4]], "output_shift": [[5], [6]]})",
           R"({"input_shift": [[1], [null]], "output_scale": [[3], [4]], "output_shift": [[5], [6]]})",
           R"({"input_shift": [[1], 2], "output_scale": [[3], [4]], "output_shift": [[5], [6]]})",
       }) {
    check(refused([&] { read_correction(text); }), text, __LINE__);
  }
}

void test_arguments() {
  const dq::Arguments arguments =
      dq::parse_arguments({"--bundle", "b", "--seeds", "2", "--report", "r", "--teacher-forced", "off"});
  CHECK(arguments.bundle == "b" && arguments.report == "r");
  CHECK(arguments.seeds == std::size_t{2} && !arguments.teacher_forced);
  CHECK(!arguments.steps && !arguments.guidance);
  const dq::Arguments other = dq::parse_arguments({"--bundle", "b", "--report", "r", "--steps", "8", "--guidance", "7.5"});
  CHECK(other.steps == std::size_t{8} && other.guidance == 7.5);
  for (const char* text : {"x", "1x", "nan", "inf", "1e7"}) {
    check(refused([&] { dq::parse_arguments({"--bundle", "b", "--report", "r", "--guidance", text}); }), text, __LINE__);
  }
  CHECK(refused([] { dq::parse_arguments({"--bundle", "b", "--report", "r", "--steps", "0"}); }));
  CHECK(dq::parse_arguments({"--help"}).help);
  CHECK(refused([] { dq::parse_arguments({"--bundle", "b"}); }));
  CHECK(refused([] { dq::parse_arguments({"--bundle", "b", "--report"}); }));
}

}  // namespace

/// In the environment's locale, as in a host such as Java, which sets it for the whole process.
int main() {
  if (std::setlocale(LC_ALL, "") == nullptr) std::fputs("the environment names a locale that is not installed\n", stderr);
  test_sha256();
  test_json_reader();
  test_json_writer();
  test_numbers_have_a_point_in_every_locale();
  test_safetensors();
  test_metrics();
  test_sampler();
  test_correction();
  test_damaged_corrections();
  test_arguments();
  if (failures == 0) std::printf("all unit tests passed; printf writes %.1f\n", 0.5);
  return failures == 0 ? 0 : 1;
}
