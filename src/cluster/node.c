/*
 * node.c
 *	  What an instance says of itself in its node key, and what is made of the others'.
 *
 * Runs in the coordinator.  Most of it never changes while the server lives and is looked up once.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"

#include "clock.h"
#include "cluster/node.h"
#include "compat.h"
#include "core/selector.h"
#include "settings.h"

#define DSCHED_VERSION "1.0"

/* tzdata as Debian and others install it; the first line of the first file says "# version 2025b". */
#define TZDATA_FILE "/usr/share/zoneinfo/tzdata.zi"
#define TZDATA_PREFIX "# version "
#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

static void read_first_line(const char *path, char *line, int size);
static void describe_place(NodeInfo *info);
static char *labels_to_json(const char *labels);
static void labels_to_text(const char *json, char *text, size_t size);

/* ---- our own --------------------------------------------------------------------------------- */

/* "" if the file is not there or empty. */
static void
read_first_line(const char *path, char *line, int size)
{
	FILE *file = AllocateFile(path, "r");

	line[0] = '\0';
	if (file == NULL)
		return;
	if (fgets(line, size, file) == NULL)
		line[0] = '\0';
	line[strcspn(line, "\r\n")] = '\0';
	FreeFile(file);
}

/* What tells this data directory on this boot of this machine from all others. */
static void
describe_place(NodeInfo *info)
{
	struct stat st;

	read_first_line(BOOT_ID_FILE, info->boot_id, sizeof(info->boot_id));
	if (stat(DataDir, &st) != 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not stat data directory \"%s\": %m", DataDir)));
	info->data_dev = (uint64_t) st.st_dev;
	info->data_ino = (uint64_t) st.st_ino;
}

static void
describe_tzdata(NodeInfo *info)
{
	char line[64];

	read_first_line(TZDATA_FILE, line, sizeof(line));
	if (strncmp(line, TZDATA_PREFIX, strlen(TZDATA_PREFIX)) == 0)
		strlcpy(info->tzdata, line + strlen(TZDATA_PREFIX), sizeof(info->tzdata));
}

/* "region=eu,disk=ssd", which the setting's check has seen, as a JSON object, malloc'd; NULL: no labels. */
static char *
labels_to_json(const char *labels)
{
	char *copy = pstrdup(labels);
	char *save = NULL;
	char *pair;
	cJSON *object = cJSON_CreateObject();
	char *json = NULL;

	for (pair = strtok_r(copy, ",", &save); pair != NULL; pair = strtok_r(NULL, ",", &save))
	{
		char *value;

		value = strchr(pair, '=');
		if (value == NULL)
			continue;
		*value++ = '\0';
		cJSON_AddStringToObject(object, pair, value);
	}
	if (object != NULL && object->child != NULL)
		json = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	pfree(copy);
	return json;
}

static void
describe_once(NodeInfo *info)
{
	strlcpy(info->node, dsched_my_node(), sizeof(info->node));
	if (gethostname(info->host, sizeof(info->host)) != 0)
		info->host[0] = '\0';
	info->host[sizeof(info->host) - 1] = '\0';
	info->port = PostPortNumber;
	strlcpy(info->version, DSCHED_VERSION, sizeof(info->version));
	info->server_version_num = PG_VERSION_NUM;
	info->system_identifier = GetSystemIdentifier();
	describe_place(info);
	describe_tzdata(info);
}

NodeInfo *
node_describe(int64 lease)
{
	static NodeInfo info;

	if (info.node[0] == '\0')
		describe_once(&info);
	/* a reload can change them */
	free(info.labels);
	info.labels = labels_to_json(dsched_node_labels);
	info.lease = lease;
	info.timeline = GetWALInsertionTimeLine();
	info.wall_clock = dsched_wall_now();
	return &info;
}

bool
node_is_here(const NodeInfo *other)
{
	const NodeInfo *own = node_describe(0);

	return own->boot_id[0] != '\0' && strcmp(own->boot_id, other->boot_id) == 0 &&
		   own->data_dev == other->data_dev && own->data_ino == other->data_ino;
}

/* ---- others ---------------------------------------------------------------------------------- */

/*
 * The reverse of labels_to_json(), in their one form.  A label that no instance can set is left out, as is what has no room:
 * such an instance matches nothing that asks for it.
 */
static void
labels_to_text(const char *json, char *text, size_t size)
{
	cJSON *object = json ? etcd_json_parse(json, strlen(json)) : NULL;
	char labels[LABELS_MAX + 1];
	char normal[LABELS_MAX + 1];
	const cJSON *label;
	size_t used = 0;

	text[0] = labels[0] = '\0';
	cJSON_ArrayForEach(label, object)
	{
		const char *value = cJSON_GetStringValue(label);
		size_t need;

		if (!cJSON_IsObject(object) || value == NULL || !label_key_valid(label->string) ||
			!label_value_valid(value))
			continue;
		need = strlen(label->string) + strlen(value) + 1 + (used > 0 ? 1 : 0);
		if (used + need > LABELS_MAX)
			continue;
		used += snprintf(labels + used, need + 1, "%s%s=%s", used > 0 ? "," : "", label->string, value);
	}
	cJSON_Delete(object);
	if (labels_normalise(labels, normal, NULL))
		strlcpy(text, normal, size);
}

/* Texts that are shown to people, and may have been written by anybody: no control characters. */
static void
show_safely(char *out, size_t size, const char *text)
{
	strlcpy(out, text, size);
	for (char *p = out; *p != '\0'; p++)
		if ((unsigned char) *p < 0x20 || *p == 0x7F)
			*p = '?';
}

void
node_to_member(const NodeInfo *info, int64 session, MemberInfo *out)
{
	char labels[sizeof(out->labels)];

	show_safely(out->host, sizeof(out->host), info->host);
	out->port = info->port;
	labels_to_text(info->labels, labels, sizeof(labels));
	show_safely(out->labels, sizeof(out->labels), labels);
	show_safely(out->version, sizeof(out->version), info->version);
	show_safely(out->tzdata, sizeof(out->tzdata), info->tzdata);
	out->session = session;
	out->joined_wall = info->wall_clock;
}
