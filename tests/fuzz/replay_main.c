/* replay_main.c: runs a fuzz target once over each file given, without libFuzzer.
 *
 * Arguments are files or folders (walked in full; one that does not exist is skipped, so that a target without crash
 * files needs no empty folder). Each input is put into a heap block of exactly its size, so that the address sanitizer
 * sees a read past its end.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

enum { INPUT_MAX_BYTES = 16 << 20, PATH_BYTES = 4096 };

static unsigned replayed;

static int replay_file(const char *path, size_t size)
{
    if (size > INPUT_MAX_BYTES) {
        fprintf(stderr, "%s: larger than %d bytes\n", path, INPUT_MAX_BYTES);
        return -1;
    }
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(size ? size : 1);
    int result = -1;
    if (file && data && fread(data, 1, size, file) == size) {
        /* The name is out before the run: when the target crashes it says on what. */
        printf("%s\n", path);
        fflush(stdout);
        LLVMFuzzerTestOneInput(data, size);
        replayed++;
        result = 0;
    } else {
        perror(path);
    }
    free(data);
    if (file)
        fclose(file);
    return result;
}

static int replay(const char *path);

static int replay_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) {
        perror(path);
        return -1;
    }
    int result = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char inner[PATH_BYTES];
        if (entry->d_name[0] == '.')
            continue;
        int len = snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        if (len < 0 || (size_t)len >= sizeof(inner) || replay(inner) != 0)
            result = -1;
    }
    closedir(folder);
    return result;
}

static int replay(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return 0;
    return S_ISDIR(info.st_mode) ? replay_folder(path) : replay_file(path, (size_t)info.st_size);
}

int main(int argc, char **argv)
{
    int result = 0;
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        if (replay(argv[i]) != 0)
            result = -1;
    }
    printf("replayed %u inputs\n", replayed);
    if (replayed == 0)
        fprintf(stderr, "no input found: commit a corpus in tests/fuzz/corpus/<target>/\n");
    return result == 0 && replayed > 0 ? 0 : 1;
}
