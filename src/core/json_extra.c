/*
 * json_extra.c
 *	  Members of a value that this version does not know: kept as text, and written back.
 *
 * An old version's change of a definition does not lose what a newer one has put there.  The text may come
 * from elsewhere than the decoder (it has stood in a table), so it is checked like any other: an object,
 * within the bounds, without the name of a member that is known.
 */
#include "core/json.h"

#include <string.h>

void
json_check_extra(Problem *problem, const char *extra, bool (*known)(const char *name), size_t n)
{
	Scanner scan;
	cJSON *root;
	const cJSON *item;

	if (extra == NULL || problem->found)
		return;
	root = json_parse_object(extra, strlen(extra), &scan, problem);
	if (root == NULL)
		return;
	cJSON_ArrayForEach(item, root)
	{
		if (known(item->string))
			json_complain(problem, "an extra field has the name of a known one");
	}
	if (scan.nmembers + n > CODEC_MAX_MEMBERS)
		json_complain(problem, "there are too many extra fields");
	cJSON_Delete(root);
}

char *
json_read_extra(const cJSON *root, const Scanner *scan, bool (*known)(const char *name), Problem *problem)
{
	Writer writer = json_writer_begin();
	const Member *member = scan->members;
	const cJSON *item;

	json_put(&writer, "{");
	cJSON_ArrayForEach(item, root)
	{
		if (!known(item->string))
		{
			json_put_separator(&writer);
			json_put_bytes(&writer, member->name, member->end - member->name);
		}
		member++;
	}
	if (writer.failed)
		json_complain(problem, "out of memory");
	else if (writer.used == 1)
		writer.failed = true; /* nothing is there: json_put_tail() is to give NULL */
	return json_put_tail(&writer, NULL);
}

void
json_put_extra(Writer *writer, const char *extra)
{
	const char *start;
	const char *end;

	if (extra == NULL)
		return;
	/* that it is an object is checked already */
	start = strchr(extra, '{') + 1;
	end = strrchr(extra, '}');
	start += strspn(start, " \t\n\r");
	if (start == end)
		return;
	json_put_separator(writer);
	json_put_bytes(writer, start, end - start);
}
