/* What a C program with libbpf takes for what the scripts beside it do. Prints seconds of processor time, or events a second:
 *
 *   peer batch N     one map, N entries, one call of the batch update
 *   peer single N    the same, an update each
 *   peer get N       N lookups of keys that are there, the bare system call
 *   peer set N       N updates of keys that are there, the bare system call
 *   peer burst PROGRAM_ID SECONDS runs a program, over and over; the sum of what it returns
 *   peer fill PROGRAM_ID N        runs a program N times
 *   peer rate OBJECT SECONDS      prints "ready PROGRAM_ID", then how many records a second reach a callback and the
 *                                 processor time of one, and goes on until it is stopped
 *   peer drain OBJECT ROUNDS N    fills a ring buffer with N records; the seconds of processor time to take one
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int hash(uint32_t entries)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "peer", 4, 8, entries, NULL);
	if (fd < 0)
		die("bpf_map_create");
	return fd;
}

static double load(uint32_t count, int batch)
{
	uint32_t *keys = malloc(count * sizeof(*keys)), done = count;
	uint64_t *values = malloc(count * sizeof(*values));
	int fd = hash(count);
	double start = now(CLOCK_PROCESS_CPUTIME_ID);
	for (uint32_t i = 0; i < count; i++) {
		keys[i] = i + 1;
		values[i] = i * 2ull;
	}
	if (batch) {
		if (bpf_map_update_batch(fd, keys, values, &done, NULL))
			die("bpf_map_update_batch");
	} else {
		for (uint32_t i = 0; i < count; i++)
			if (bpf_map_update_elem(fd, &keys[i], &values[i], BPF_ANY))
				die("bpf_map_update_elem");
	}
	return now(CLOCK_PROCESS_CPUTIME_ID) - start;
}

/* Lookups, or updates, of keys that are there. */
static double each(int command, uint32_t count)
{
	int fd = hash(1024);
	uint64_t value = 7, sum = 0;
	for (uint32_t key = 0; key < 1024; key++)
		bpf_map_update_elem(fd, &key, &value, BPF_ANY);
	double start = now(CLOCK_PROCESS_CPUTIME_ID);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t key = i & 1023;
		union bpf_attr attr;
		memset(&attr, 0, sizeof(attr));
		attr.map_fd = fd;
		attr.key = (uint64_t)(unsigned long)&key;
		attr.value = (uint64_t)(unsigned long)&value;
		if (syscall(SYS_bpf, command, &attr, sizeof(attr)))
			die("BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM");
		sum += value;
	}
	double took = now(CLOCK_PROCESS_CPUTIME_ID) - start;
	if (sum != count * 7ull)
		die("sum");
	return took;
}

struct event {
	uint32_t number, source;
	uint64_t bytes;
};

static uint64_t events, bytes;

static int on_event(void *context, void *data, size_t size)
{
	const struct event *event = data;
	(void)context;
	if (size < sizeof(*event))
		return 0;
	events++;
	bytes += event->bytes;
	return 0;
}

static struct ring_buffer *open_events(const char *path, const char *name, uint32_t *id)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	if (!object || bpf_object__load(object))
		die(path);
	int map = bpf_object__find_map_fd_by_name(object, "events");
	struct bpf_program *program = bpf_object__find_program_by_name(object, name);
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);
	if (!program || bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size))
		die(name);
	struct ring_buffer *ring = ring_buffer__new(map, on_event, NULL, NULL);
	if (!ring)
		die("ring_buffer__new");
	*id = info.id;
	return ring;
}

/* Records a second, and the processor time of one; then it goes on until it is stopped, so that what is lost was sent to
 * somebody. */
static void rate(const char *path, double seconds)
{
	uint32_t id;
	struct ring_buffer *ring = open_events(path, "burst", &id);
	printf("ready %u\n", id);
	fflush(stdout);
	while (!events)
		ring_buffer__poll(ring, 100);
	uint64_t before = events;
	double start = now(CLOCK_MONOTONIC), spent = now(CLOCK_PROCESS_CPUTIME_ID);
	while (now(CLOCK_MONOTONIC) - start < seconds)
		ring_buffer__poll(ring, 100);
	double took = now(CLOCK_MONOTONIC) - start;
	spent = now(CLOCK_PROCESS_CPUTIME_ID) - spent;
	printf("%.9g %.9g\n", (events - before) / took, spent / (events - before));
	fflush(stdout);
	for (;;)
		ring_buffer__poll(ring, 100);
}

static void fill(uint32_t id, int count)
{
	char packet[64] = {};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet, .data_size_in = sizeof(packet),
		    .repeat = count);
	int fd = bpf_prog_get_fd_by_id(id);
	if (fd < 0 || bpf_prog_test_run_opts(fd, &options))
		die("bpf_prog_test_run_opts");
}

static double drain(const char *path, int rounds, int count)
{
	uint32_t id;
	double spent = 0;
	struct ring_buffer *ring = open_events(path, "send", &id);
	for (int round = 0; round < rounds; round++) {
		fill(id, count);
		double start = now(CLOCK_PROCESS_CPUTIME_ID);
		ring_buffer__consume(ring);
		spent += now(CLOCK_PROCESS_CPUTIME_ID) - start;
	}
	if (events != (uint64_t)rounds * count)
		die("records");
	return spent / events;
}

static uint64_t burst(uint32_t id, double seconds)
{
	char packet[64] = {};
	uint64_t sum = 0;
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet, .data_size_in = sizeof(packet));
	int fd = bpf_prog_get_fd_by_id(id);
	double start = now(CLOCK_MONOTONIC);
	if (fd < 0)
		die("bpf_prog_get_fd_by_id");
	for (; now(CLOCK_MONOTONIC) - start < seconds; sum += options.retval)
		if (bpf_prog_test_run_opts(fd, &options))
			die("bpf_prog_test_run_opts");
	return sum;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "rate"))
		rate(argv[2], atof(argv[3]));
	else if (argc == 5 && !strcmp(argv[1], "drain"))
		printf("%.9g\n", drain(argv[2], atoi(argv[3]), atoi(argv[4])));
	else if (argc == 4 && !strcmp(argv[1], "burst"))
		printf("%llu\n", (unsigned long long)burst(atoi(argv[2]), atof(argv[3])));
	else if (argc == 4 && !strcmp(argv[1], "fill"))
		fill(atoi(argv[2]), atoi(argv[3]));
	else if (argc == 3 && !strcmp(argv[1], "batch"))
		printf("%.9f\n", load(atoi(argv[2]), 1));
	else if (argc == 3 && !strcmp(argv[1], "single"))
		printf("%.9f\n", load(atoi(argv[2]), 0));
	else if (argc == 3 && !strcmp(argv[1], "get"))
		printf("%.9f\n", each(BPF_MAP_LOOKUP_ELEM, atoi(argv[2])));
	else if (argc == 3 && !strcmp(argv[1], "set"))
		printf("%.9f\n", each(BPF_MAP_UPDATE_ELEM, atoi(argv[2])));
	else
		return 2;
	return 0;
}
