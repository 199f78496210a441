# CREATE EXTENSION where somebody has been before: in a schema of his, in one with something in it. And a dump that is restored.

use strict;
use warnings;

use DschedTest;
use Test::More;

my $node = new_instance('node1');

$node->safe_psql('postgres', q{CREATE ROLE mallory LOGIN; GRANT CREATE ON DATABASE postgres TO mallory});
$node->safe_psql('postgres', q{
	SET SESSION AUTHORIZATION mallory;
	CREATE SCHEMA dsched;
	CREATE TABLE dsched.seen (who name);
	GRANT ALL ON dsched.seen TO PUBLIC;
	CREATE FUNCTION dsched.mul(bigint, interval) RETURNS interval LANGUAGE sql AS $$ INSERT INTO dsched.seen VALUES (current_user); SELECT interval '0' $$;
	CREATE OPERATOR dsched.* (LEFTARG = bigint, RIGHTARG = interval, PROCEDURE = dsched.mul);
});

sub fails
{
	my ($sql) = @_;
	my ($status, $out, $error) = $node->psql('postgres', $sql);

	return $status == 0 ? 'it did not fail' : $error;
}

like(fails('CREATE EXTENSION dsched'), qr/schema "dsched" belongs to role "mallory".*HINT/s, 'a schema of somebody else is refused');
$node->safe_psql('postgres', 'ALTER SCHEMA dsched OWNER TO postgres');
like(fails('CREATE EXTENSION dsched'), qr/schema "dsched" is not empty/, 'and one in which there is something');
foreach my $object ('TABLE dsched.seen', 'OPERATOR dsched.* (bigint, interval)', 'FUNCTION dsched.mul(bigint, interval)')
{
	$node->safe_psql('postgres', "DROP $object");
	like(fails('CREATE EXTENSION dsched'), qr/schema "dsched" is not empty/, "also when $object is gone") unless $object =~ /mul/;
}
foreach my $object ('TYPE dsched.x AS ENUM ()', 'AGGREGATE dsched.max(timestamptz) (SFUNC = timestamptz_larger, STYPE = timestamptz)', 'DOMAIN dsched.y AS text', 'VIEW dsched.z AS SELECT 1', 'COLLATION dsched.c (LOCALE = \'C\')')
{
	$node->safe_psql('postgres', "CREATE $object");
	like(fails('CREATE EXTENSION dsched'), qr/schema "dsched" is not empty/, "nor with $object");
	$object =~ /^(\w+ dsched\.\w+(?:\(\w+\))?)/;
	$node->safe_psql('postgres', "DROP $1");
}
$node->safe_psql('postgres', 'CREATE EXTENSION dsched');
is($node->safe_psql('postgres', 'SELECT count(*) FROM dsched.runs'), 0, 'an empty schema of a superuser will do, as a restored dump has it');
$node->safe_psql('postgres', 'DROP EXTENSION dsched; DROP SCHEMA dsched; CREATE EXTENSION dsched');
is($node->safe_psql('postgres', q{SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'dsched'}), $node->safe_psql('postgres', 'SELECT current_user'), 'and so will none');

# Where a hostile search path is in force.
$node->safe_psql('postgres', q{CREATE SCHEMA evil; CREATE TABLE evil.seen (what text); CREATE FUNCTION evil.see() RETURNS timestamptz LANGUAGE sql AS $$ INSERT INTO evil.seen VALUES ('x'); SELECT pg_catalog.now() $$;
	CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.see()'; CREATE FUNCTION evil.pg_extension_config_dump(regclass, text) RETURNS void LANGUAGE sql AS 'SELECT evil.see()';
	DROP EXTENSION dsched; SET search_path = evil, pg_catalog; CREATE EXTENSION dsched; SELECT dsched.schedule('j', '0 0 1 1 *', 'SELECT 1'); SELECT * FROM dsched.jobs; SELECT * FROM dsched.runs;});
is($node->safe_psql('postgres', 'SELECT count(*) FROM evil.seen'), 0, 'a search path has no say');
done_testing();
