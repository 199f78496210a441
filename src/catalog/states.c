/*
 * states.c
 *	  The table dsched.partition_state: how far each partition is accounted for.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "access.h"
#include "clock.h"
#include "compat.h"

void
state_write(const char *place, int partition, const char *state)
{
	static CatalogQuery query = {
		"INSERT INTO dsched.partition_state (place, partition, state, updated_at) VALUES ($1, $2, $3, $4)"
		" ON CONFLICT (place, partition) DO UPDATE SET state = EXCLUDED.state, updated_at = EXCLUDED.updated_at",
		SPI_OK_INSERT, 4, {TEXTOID, INT4OID, TEXTOID, TIMESTAMPTZOID}
	};
	CatalogSpi	spi;
	Datum		values[4];

	catalog_spi_begin(&spi);
	values[0] = CStringGetTextDatum(place);
	values[1] = Int32GetDatum(partition);
	values[2] = CStringGetTextDatum(state);
	values[3] = TimestampTzGetDatum(dsched_wall_now());
	catalog_run(&query, values, NULL);
	catalog_spi_finish(&spi);
}

char *
state_read(const char *place, int partition)
{
	static CatalogQuery query = {
		"SELECT state FROM dsched.partition_state"
		" WHERE place OPERATOR(pg_catalog.=) $1 AND partition OPERATOR(pg_catalog.=) $2",
		SPI_OK_SELECT, 2, {TEXTOID, INT4OID}
	};
	MemoryContext caller = CurrentMemoryContext;
	CatalogSpi	spi;
	Datum		values[2];
	char	   *result = NULL;

	catalog_spi_begin(&spi);
	values[0] = CStringGetTextDatum(place);
	values[1] = Int32GetDatum(partition);
	if (catalog_run(&query, values, NULL) > 0)
	{
		bool		isnull;
		Datum		state = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		result = MemoryContextStrdup(caller, TextDatumGetCString(state));
	}
	catalog_spi_finish(&spi);
	return result;
}
