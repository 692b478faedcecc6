#include <png.h>

#include <csetjmp>
#include <cstring>
#include <system_error>

#include "error.h"
#include "files.h"
#include "picture.h"

namespace dq {
namespace {

constexpr std::uintmax_t most_bytes = 1ULL << 30;
constexpr std::size_t rgba = 4;

/// libpng's side of a file in memory. It jumps where it fails: nothing here has a destructor.
struct Source {
  const std::uint8_t* bytes;
  std::size_t size, at;
  char reason[200];
};

/// What the file says before the pixels.
struct Head {
  png_uint_32 width, height;
  int depth, kind;
};

[[noreturn]] void fail(png_structp png, png_const_charp reason) {
  Source* source = static_cast<Source*>(png_get_error_ptr(png));
  std::strncpy(source->reason, reason, sizeof source->reason - 1);
  png_longjmp(png, 1);
}

void ignore(png_structp, png_const_charp) {}

void read(png_structp png, png_bytep to, std::size_t size) {
  Source* source = static_cast<Source*>(png_get_io_ptr(png));
  if (size > source->size - source->at) png_error(png, "it ends too early");
  std::memcpy(to, source->bytes + source->at, size);
  source->at += size;
}

/// A reader with its two structures, freed with it.
class Reader {
 public:
  explicit Reader(const Bytes& bytes) : source_{bytes.data(), bytes.size(), 0, {}} {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source_, fail, ignore);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ != nullptr) png_set_read_fn(png_, &source_, read);
  }
  ~Reader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  /// False: see reason().
  bool head(Head& head) {
    if (info_ == nullptr) return false;
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_read_info(png_, info_);
    return png_get_IHDR(png_, info_, &head.width, &head.height, &head.depth, &head.kind, nullptr, nullptr, nullptr) != 0;
  }

  /// Rows of RGBA, no colour management: numbers as they are stored. False: see reason().
  bool pixels(std::uint8_t* const* rows) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_expand(png_);  // palettes and transparent colours
    png_set_gray_to_rgb(png_);
    png_set_add_alpha(png_, 0xFF, PNG_FILLER_AFTER);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    if (png_get_rowbytes(png_, info_) != rgba * png_get_image_width(png_, info_)) return false;
    png_read_image(png_, const_cast<png_bytepp>(rows));
    png_read_end(png_, nullptr);
    return true;
  }

  const char* reason() const { return source_.reason[0] != '\0' ? source_.reason : "libpng does not start"; }

 private:
  Source source_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

Bytes read_picture_file(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (!error && size > most_bytes) throw Error("--image: " + path.string() + " has " + std::to_string(size >> 20) + " MiB, allowed are 1024; save it again");
  return read_file(path);
}

void check(const Head& head, std::size_t height, std::size_t width, const std::string& path) {
  if (head.depth != 8 && head.kind != PNG_COLOR_TYPE_PALETTE) {
    throw Error("--image: " + path + " has " + std::to_string(head.depth) + " bits per channel, allowed are 8; convert it");
  }
  if (head.height != height || head.width != width) {
    throw Error("--image: " + path + " is " + std::to_string(head.width) + " x " + std::to_string(head.height) + " pixels, the model takes " +
                std::to_string(width) + " x " + std::to_string(height) + "; scale or crop it");
  }
}

}  // namespace

Picture read_png(const std::filesystem::path& path, std::size_t height, std::size_t width) {
  constexpr std::size_t signature = 8, channels = 3;
  const std::string name = path.string();
  const Bytes bytes = read_picture_file(path);
  if (bytes.size() < signature || png_sig_cmp(bytes.data(), 0, signature) != 0) throw Error("--image: " + name + " is no PNG file; save the picture as one");
  Reader reader(bytes);
  Head head{};
  if (!reader.head(head)) throw Error("--image: " + name + " cannot be read: " + reader.reason() + "; save it again");
  check(head, height, width, name);  // before memory is taken
  std::vector<std::uint8_t> all(height * width * rgba);
  std::vector<std::uint8_t*> rows;
  for (std::size_t y = 0; y < height; ++y) rows.push_back(all.data() + y * width * rgba);
  if (!reader.pixels(rows.data())) throw Error("--image: " + name + " cannot be read: " + reader.reason() + "; save it again");
  Picture picture{channels, height, width, std::vector<std::uint8_t>(height * width * channels)};
  for (std::size_t i = 0; i < height * width; ++i) {
    if (all[i * rgba + channels] != 0xFF) throw Error("--image: " + name + " has pixels that are not opaque; put it on a background first");
    std::memcpy(&picture.pixels[i * channels], &all[i * rgba], channels);
  }
  return picture;
}

}  // namespace dq
