/* CUDA's runtime and driver as far as CuPy needs them, over the memory of this host, for tests.

What is queued on a stream is done when somebody waits for it, not before: copies, zeros, kernels
(which `cuda_host.h` runs). So what is read or written again too early is seen. There are two
devices, and memory of one cannot be used by kernels on the other. All is called with Python's
lock held, in the form in which CuPy's modules export it to each other (see `cupy_on_host.py`). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct _object PyObject;
extern PyObject _Py_NoneStruct;
void Py_IncRef(PyObject*);
PyObject* PyLong_FromLong(long);
static PyObject* none(void) {
    Py_IncRef(&_Py_NoneStruct);
    return &_Py_NoneStruct;
}

enum { DEVICES = 2, MOST = 1 << 20, MOST_PARAMETERS = 40 };
static void stop(const char* why) {
    fprintf(stderr, "cuda_runtime.c: %s\n", why);
    abort();
}

/* Handles are numbers above all small ones; what they stand for is found in tables. */
typedef const char* Kernel(unsigned, unsigned, unsigned, size_t, void**);
typedef struct Work {
    struct Work* next;
    enum { COPY, FILL, RUN, AWAIT } what;
    char *to, *from;
    size_t bytes;
    int value;
    Kernel* kernel;
    unsigned grid[2], threads, shared;
    uint64_t given[MOST_PARAMETERS];
    int parameters;
    intptr_t event;
} Work;
typedef struct { Work *first, *last; int64_t queued, done; int device; } Stream;
typedef struct { intptr_t stream; int64_t until; int device; } Event;
typedef struct { Kernel* kernel; int parameters, device, most_shared; } Function;
typedef struct { char* start; size_t bytes; int device; } Memory;

static Stream streams[MOST];
static Event events[MOST];
static Function functions[MOST];
static Memory memories[MOST];
static intptr_t n_streams = 16, n_events = 1, n_functions = 1, n_memories;
static __thread int current;
static long launched, waits, live_modules, downloaded;

static Stream* of(intptr_t stream) {
    if (stream == 0) stream = 1 + current; /* the default stream of the device */
    if (stream < 0 || stream >= n_streams) stop("no such stream");
    if (stream < 3) streams[stream].device = (int)stream - 1;
    return &streams[stream];
}
static intptr_t number(Stream* s) { return s - streams; }
static Memory* memory_of(const void* at) {
    for (intptr_t i = n_memories - 1; i >= 0; i--)
        if ((char*)at >= memories[i].start && (char*)at < memories[i].start + memories[i].bytes)
            return &memories[i];
    return NULL;
}

static void run_until(Stream* s, int64_t until) {
    while (s->first && s->done < until) {
        Work* w = s->first;
        s->first = w->next;
        s->done++;
        if (w->what == COPY) memcpy(w->to, w->from, w->bytes);
        if (w->what == FILL) memset(w->to, w->value, w->bytes);
        if (w->what == AWAIT) {
            Event* e = &events[w->event];
            if (e->stream) run_until(&streams[e->stream], e->until);
        }
        if (w->what == RUN) {
            void* given[MOST_PARAMETERS];
            for (int i = 0; i < w->parameters; i++) given[i] = &w->given[i];
            const char* why = w->kernel(w->grid[0], w->grid[1], w->threads, w->shared, given);
            if (why) stop(why);
        }
        free(w);
    }
}
static Work* queue(Stream* s, int what) {
    Work* w = calloc(1, sizeof *w);
    w->what = what;
    if (!s->first) s->first = w; else s->last->next = w;
    s->last = w;
    s->queued++;
    return w;
}
static void run_all(void) {
    for (intptr_t i = 1; i < n_streams; i++) run_until(&streams[i], streams[i].queued);
}

/* Devices */
int getDevice(int skip) { return current; }
PyObject* setDevice(int device, int skip) {
    if (device < 0 || device >= DEVICES) stop("no such device");
    current = device;
    return none();
}
int getDeviceCount(int skip) { return DEVICES; }
int driverGetVersion(int skip) { return 13010; }
int runtimeGetVersion(int skip) { return 13010; }
int deviceGetAttribute(int which, int device, int skip) {
    switch (which) {
        case 75: return 9;        /* compute capability */
        case 76: return 0;
        case 16: return 3;        /* multiprocessors */
        case 97: return 99 << 10; /* shared memory of a block, where it is asked for */
        case 81: return 100 << 10; /* ... and of a multiprocessor */
        case 1: return 1024;      /* threads of a block */
        default: return 0;
    }
}
int deviceCanAccessPeer(int a, int b, int skip) { return 1; }
PyObject* deviceEnablePeerAccess(int peer, int skip) { return none(); }
PyObject* ensure_peer_access(int peer, int skip) { return none(); }
PyObject* ensure_context(void) { return none(); }
intptr_t ctxGetCurrent(int skip) { return 1 + current; }
PyObject* deviceSynchronize(int skip) { run_all(); return none(); }

/* Streams and events */
intptr_t streamCreateWithPriority(unsigned flags, int priority, int skip) {
    if (n_streams == MOST) stop("too many streams");
    streams[n_streams].device = current;
    return n_streams++;
}
intptr_t streamCreateWithFlags(unsigned flags, int skip) {
    return streamCreateWithPriority(flags, 0, skip);
}
PyObject* streamDestroy(intptr_t stream, int skip) {
    run_until(of(stream), of(stream)->queued);
    return none();
}
PyObject* streamSynchronize(intptr_t stream, int skip) {
    waits++;
    run_until(of(stream), of(stream)->queued);
    return none();
}
PyObject* streamWaitEvent(intptr_t stream, intptr_t event, int skip, void* more) {
    queue(of(stream), AWAIT)->event = event;
    return none();
}
int streamIsCapturing(intptr_t stream, int skip) { return 0; }
intptr_t eventCreateWithFlags(unsigned flags, int skip) {
    if (n_events == MOST) stop("too many events");
    events[n_events].device = current;
    return n_events++;
}
PyObject* eventDestroy(intptr_t event, int skip) { return none(); }
PyObject* eventRecord(intptr_t event, intptr_t stream, int skip) {
    Stream* s = of(stream);
    if (events[event].device != s->device) stop("an event on a stream of another device");
    events[event].stream = number(s);
    events[event].until = s->queued;
    return none();
}
PyObject* eventSynchronize(intptr_t event, int skip) {
    Event* e = &events[event];
    if (e->stream) run_until(&streams[e->stream], e->until);
    return none();
}

PyObject* eventQuery(intptr_t event, int skip) {
    Event* e = &events[event];
    int done = !e->stream || streams[e->stream].done >= e->until;
    return PyLong_FromLong(done ? 0 : 600); /* not ready */
}

/* Memory */
intptr_t allocate(size_t bytes, int skip) {
    if (n_memories == MOST) stop("too many allocations");
    char* start = NULL;
    if (posix_memalign((void**)&start, 512, bytes + 1)) stop("no memory");
    memset(start, 0xA5, bytes); /* what is not written is seen */
    memories[n_memories].start = start;
    memories[n_memories].bytes = bytes;
    memories[n_memories++].device = current;
    return (intptr_t)start;
}
PyObject* release(intptr_t at, int skip) {
    run_all();
    Memory* m = at ? memory_of((void*)at) : NULL;
    if (m) {
        free(m->start);
        *m = memories[--n_memories];
    }
    return none();
}
intptr_t hostAlloc(size_t bytes, unsigned flags, int skip) {
    char* start = malloc(bytes + 1);
    memset(start, 0xA5, bytes);
    return (intptr_t)start;
}
PyObject* freeHost(intptr_t at, int skip) { run_all(); free((void*)at); return none(); }
PyObject* memsetAsync(intptr_t to, int value, size_t bytes, intptr_t stream, int skip) {
    Work* w = queue(of(stream), FILL);
    w->to = (char*)to, w->value = value, w->bytes = bytes;
    return none();
}
PyObject* memcpyAsync(intptr_t to, intptr_t from, size_t bytes, int kind, intptr_t stream, int skip) {
    Work* w = queue(of(stream), COPY);
    w->to = (char*)to, w->from = (char*)from, w->bytes = bytes;
    if (kind == 2) downloaded += bytes;
    return none();
}
PyObject* copy_now(intptr_t to, intptr_t from, size_t bytes, int kind, int skip) {
    Stream* s = of(0);
    run_until(s, s->queued);
    memcpy((void*)to, (void*)from, bytes);
    return none();
}
PyObject* memcpyPeerAsync(
    intptr_t to, int to_device, intptr_t from, int from_device, size_t bytes, intptr_t stream,
    int skip) {
    return memcpyAsync(to, from, bytes, 3, stream, skip);
}
int pointerGetMemoryType(intptr_t at, int skip) { return memory_of((void*)at) ? 2 : 0; }
int device_of_pointer(intptr_t at) {
    Memory* m = memory_of((void*)at);
    return m ? m->device : 0;
}

/* Code: a module is a number, a function what `make_function` was given. */
static intptr_t (*find)(PyObject* code, PyObject* name, int module);
void set_find(intptr_t (*function)(PyObject*, PyObject*, int)) { find = function; }
intptr_t moduleLoadData(PyObject* code, int skip) { live_modules++; return find(code, none(), 0); }
PyObject* moduleUnload(intptr_t module, int skip) { live_modules--; return none(); }
intptr_t moduleGetFunction(intptr_t module, PyObject* name, int skip) {
    return find(none(), name, (int)module);
}
intptr_t make_function(Kernel* kernel, int parameters) {
    if (n_functions == MOST) stop("too many functions");
    if (parameters > MOST_PARAMETERS) stop("too many parameters");
    Function* f = &functions[n_functions];
    f->kernel = kernel, f->parameters = parameters, f->device = current, f->most_shared = 40 << 10;
    return n_functions++;
}
PyObject* funcSetAttribute(intptr_t function, int which, int value, int skip) {
    if (which == 8) functions[function].most_shared = value;
    return none();
}
int funcGetAttribute(int which, intptr_t function, int skip) { return which == 1 ? 8 << 10 : 0; }
PyObject* launchKernel(
    intptr_t function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
    unsigned threads_z, unsigned shared, intptr_t stream, intptr_t given, intptr_t extra, int skip) {
    Function* f = &functions[function];
    Stream* s = of(stream);
    if (f->device != current || s->device != current) stop("a kernel on another device");
    if ((int)shared > f->most_shared) stop("more shared memory than was asked for");
    if (z != 1 || threads_y != 1 || threads_z != 1) stop("more dimensions than there are");
    Work* w = queue(s, RUN);
    w->kernel = f->kernel, w->grid[0] = x, w->grid[1] = y, w->threads = threads, w->shared = shared;
    w->parameters = f->parameters;
    for (int i = 0; i < f->parameters; i++) {
        memcpy(&w->given[i], ((void**)given)[i], 8); /* they have at most 8 bytes, in larger ones */
        Memory* m = memory_of((void*)w->given[i]);
        if (m && m->device != current) stop("an array of another device");
    }
    launched++;
    return none();
}
long get_launched(void) { return launched; }
long get_waits(void) { return waits; }
long get_live_modules(void) { return live_modules; }
long get_downloaded(void) { return downloaded; }
