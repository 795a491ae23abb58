/* The part of IOKit and CoreFoundation that reads GPU time, over a registry of two accelerators in this file.
 *
 * Apple's headers for these are not to be had, so this proves no prototype: it proves that everything that is created,
 * copied or iterated is released once. */
#include <stdlib.h>
#include <string.h>

#define MAX_OBJECTS 4096

struct object { int kind, at, parent, references, cut; const char *text; };
enum { NONE, ITERATOR, ENTRY, STRING, VALUE, DATA };

static struct object objects[MAX_OBJECTS];
static int used = 1, bad;

/* What each client answers, as property lists: who made it, and what it used. */
struct client { int accelerator; const char *creator, *usage, *direct; };
static struct client clients[16] = {
	{ 0, "<string>pid 533, WindowServer</string>",
	  "<array><dict><key>accumulatedGPUTime</key><integer>1000000000</integer></dict>"
	  "<dict><key>accumulatedGPUTime</key><integer>233367625</integer></dict></array>", 0 },
	{ 0, "<string>pid 533, WindowServer</string>",
	  "<array><dict><key>accumulatedGPUTime</key><integer>5</integer></dict></array>", 0 },
	{ 0, 0, 0, 0 },     /* a child that is no user client */
	{ 1, "<string>pid 900, game</string>", 0, "<integer>7000</integer>" },
};
static int client_count = 4;

static int make(int kind, int parent, const char *text)
{
	for (int i = 1; i < MAX_OBJECTS; i++)
		if (objects[i].references == 0 && i >= 1) {
			objects[i] = (struct object){ kind, 0, parent, 1, 0, text };
			if (i >= used)
				used = i + 1;
			return i;
		}
	bad++;
	return 0;
}

static void release(int i)
{
	if (i <= 0 || i >= MAX_OBJECTS || objects[i].references <= 0)
		bad++;
	else
		objects[i].references--;
}

int fake_iokit_alive(void)
{
	int alive = 0;

	for (int i = 1; i < used; i++)
		alive += objects[i].references > 0;
	return alive;
}

int fake_iokit_bad(void) { return bad; }

static int cuts;

/* The next `count` walks over clients end before the last one, as when a client comes or goes. */
void fake_iokit_cut(int count) { cuts = count; }

int IOIteratorIsValid(unsigned number) { return !objects[number].cut; }

void IOIteratorReset(unsigned number) { objects[number].at = objects[number].cut = 0; }

void *IOServiceMatching(const char *name) { return strcmp(name, "IOAccelerator") ? 0 : (void *)(long)make(VALUE, 0, 0); }

int IOServiceGetMatchingServices(unsigned port, void *matching, unsigned *iterator)
{
	(void)port;
	release((int)(long)matching);    /* consumed */
	*iterator = (unsigned)make(ITERATOR, -1, 0);
	return 0;
}

int IORegistryEntryGetChildIterator(unsigned entry, const char *plane, unsigned *iterator)
{
	if (strcmp(plane, "IOService"))
		return 1;
	*iterator = (unsigned)make(ITERATOR, objects[entry].at, 0);
	return 0;
}

/* An iterator with parent -1 walks the two accelerators, else the clients of that accelerator. */
unsigned IOIteratorNext(unsigned number)
{
	struct object *iterator = &objects[number];
	int child;

	if (iterator->parent < 0) {
		if (iterator->at >= 2)
			return 0;
		child = make(ENTRY, -1, 0);
		objects[child].at = iterator->at++;
		return (unsigned)child;
	}
	if (cuts > 0 && iterator->at > 0) {
		cuts--;
		iterator->cut = 1;
		iterator->at = client_count;
	}
	for (; iterator->at < client_count; iterator->at++)
		if (clients[iterator->at].accelerator == iterator->parent) {
			child = make(ENTRY, 0, 0);
			objects[child].at = iterator->at++;
			return (unsigned)child;
		}
	return 0;
}

int IOObjectRelease(unsigned object)
{
	release((int)object);
	return 0;
}

void *CFStringCreateWithCString(void *allocator, const char *text, unsigned encoding)
{
	(void)allocator;
	return encoding == 0x08000100u ? (void *)(long)make(STRING, 0, strdup(text)) : 0;
}

void *IORegistryEntryCreateCFProperty(unsigned entry, void *key, void *allocator, unsigned options)
{
	const struct client *c = &clients[objects[entry].at];
	const char *name = objects[(long)key].text, *value = 0;

	(void)allocator, (void)options;
	if (!strcmp(name, "IOUserClientCreator")) value = c->creator;
	else if (!strcmp(name, "AppUsage")) value = c->usage;
	else if (!strcmp(name, "accumulatedGPUTime")) value = c->direct;
	return value ? (void *)(long)make(VALUE, 0, value) : 0;
}

void *CFPropertyListCreateData(void *allocator, void *value, long format, unsigned long options, void *error)
{
	static char text[1024];
	int data;

	(void)allocator, (void)options, (void)error;
	if (format != 200)
		return 0;
	strcpy(text, "<plist version=\"1.0\">");
	strncat(text, objects[(long)value].text, sizeof text - 64);
	strcat(text, "</plist>");
	data = make(DATA, 0, text);
	return (void *)(long)data;
}

long CFDataGetLength(void *data) { return (long)strlen(objects[(long)data].text); }
const void *CFDataGetBytePtr(void *data) { return objects[(long)data].text; }
void CFRelease(void *object) { release((int)(long)object); }
