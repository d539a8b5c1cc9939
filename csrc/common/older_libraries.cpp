/* older_libraries.cpp - what newer glibc and libstdc++ have and those of manylinux_2_28 lack: copies that stay inside the
 * extension (setup.py, the version script), so that one wheel runs on both. `make wheel` says which tag that gives. */
#include <new>
#include <sstream>

#if defined(__linux__) && defined(__GLIBCXX__)

/* glibc 2.32; read by shared_ptr. 0: count with atomics, always right. */
extern "C" {
char __libc_single_threaded = 0;
}

/* libstdc++ 11 */
namespace std {
void __throw_bad_array_new_length() { throw bad_array_new_length(); }
} // namespace std

/* libstdc++ 9 */
template std::basic_ostringstream<char>::basic_ostringstream();
template std::basic_stringstream<char>::basic_stringstream();

#endif
