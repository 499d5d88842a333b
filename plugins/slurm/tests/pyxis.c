/* A stand-in for pyxis of NVIDIA, a plugin of srun: takes its options, by which an image is a
 * folder, and runs tasks inside with the mounts and the environment as pyxis has them (its README, 0.11 and later). */
#define _GNU_SOURCE
#include <sched.h>
#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

SPANK_PLUGIN(pyxis, 1);

static char given[3][16384]; /* image, mounts, names of variables */

static int take(int which, const char *value, int remote)
{
    if (which < 3)
        snprintf(given[which], sizeof given[which], "%s", value);
    return 0;
}

struct spank_option spank_options[] = {
    {"container-image", "IMAGE", "run in it", 1, 0, take},
    {"container-mounts", "SRC:DST[:FLAGS],...", "show folders inside", 1, 1, take},
    {"container-env", "NAME,...", "these are not the image's", 1, 2, take},
    {"no-container-mount-home", NULL, "hide the home", 0, 3, take},
    SPANK_OPTIONS_TABLE_END};

static int shown(const char *source, const char *target, int read_only)
{
    char path[3 * sizeof given[0]];
    if (strlen(target) >= sizeof given[0])
        return -1;
    snprintf(path, sizeof path, "%s%s", given[0], target);
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        mkdir(path, 0755);
        *at = '/';
    }
    mkdir(path, 0755);
    if (mount(source, path, NULL, MS_BIND | MS_REC, NULL))
        return -1;
    return read_only ? mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) : 0;
}

static int is_named(const char *name)
{
    char list[16384 + 2], word[256];
    snprintf(list, sizeof list, ",%s,", given[2]);
    snprintf(word, sizeof word, ",%s,", name);
    return strstr(list, word) != NULL;
}

int slurm_spank_task_init_privileged(spank_t spank, int count, char **words)
{
    char path[2 * sizeof given[0]], line[1024], *rest = given[1];
    if (!given[0][0])
        return 0;
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || shown("/proc", "/proc", 0) ||
        shown("/dev", "/dev", 0)) {
        slurm_error("pyxis: couldn't start container");
        return -1;
    }
    for (char *one; (one = strsep(&rest, ","));) {
        char *source = strsep(&one, ":"), *target = strsep(&one, ":");
        if (!target || shown(source, target, one && !strcmp(one, "ro"))) {
            slurm_error("pyxis: couldn't mount %s", source);
            return -1;
        }
    }
    snprintf(path, sizeof path, "%s/etc/environment", given[0]);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        char *value = line, *name = strsep(&value, "=");
        if (value && !is_named(name))
            spank_setenv(spank, name, strsep(&value, "\n"), 1);
    }
    if (file)
        fclose(file);
    return chroot(given[0]) || chdir("/") ? -1 : 0;
}
