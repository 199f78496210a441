# An etcd of several members, with TLS and users if wanted, for dsched's TAP tests.
#
#	use DschedTest;
#	use EtcdCluster;
#	my $etcd = start_etcd_cluster(tls => 1, auth => 1);
#	my $a = new_instance('a', etcd => $etcd, conf => $etcd->conf);
#
# start_etcd_cluster(%options):
#	members     3
#	timings     'default' for etcd's own (100/1000 ms), else those of DschedTest (20/200 ms)
#	tls         1: clients need https and a certificate of this cluster's authority (no common name in it: see docs/etcd.md)
#	auth        1: there are a root user and a user "dsched" who may what dsched needs, no more
#	proxy       1: a proxy (EtcdProxy) before each member; endpoints() and conf() then name the proxies
#	token_ttl   seconds that a token lives unused (etcd's own: 300)
#	quota       bytes of etcd's database
#	args        more arguments of the daemon
#
# What comes back is all that start_etcd() gives (start, stop, sigstop, leader, keys, get_json, post, ...: the harness itself talks
# to an address of each member without TLS, as root), and
#	endpoints(@numbers)     what dsched.etcd_endpoints takes
#	conf                    lines for postgresql.conf: certificates, user and password (not the endpoints)
#	proxy($number)          the proxy before a member
#	way                     proxies of its own for one instance: new_instance('a', etcd => $etcd->way, ...). It has endpoints, proxy($number),
#	                        and tell('hold'), which tells all of them (EtcdProxy says what)
#	certificate($name, %o)  makes $name.crt and $name.key in directory(); o: days (30; negative: has expired), cn, ca => 'other' (an authority that
#	                        nobody knows), server => 1. Returns both paths
#	write_password($text)   what the instances' password file has; set_password($text): what etcd has
#	ctl(@args)              etcdctl, as root
#	fresh_leader            the number of the leader, waiting for one

package EtcdCluster;

use strict;
use warnings;

use Exporter qw(import);
use DschedTest;
use EtcdProxy;
use IPC::Run;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(start_etcd_cluster);

my @clusters;

END
{
	my $exit_code = $?;

	$_->stop('KILL') foreach @clusters;
	$? = $exit_code;
}

sub start_etcd_cluster
{
	my (%opt) = @_;
	my $number = 'c' . scalar @clusters;
	my $self = bless {
		number  => $number,
		members => [],
		args    => [ @{ $opt{args} // [] } ],
		tls     => $opt{tls},
		timings => $opt{timings} // 'quick',
		dir     => PostgreSQL::Test::Utils::tempdir(),
	}, 'EtcdCluster::Cluster';

	push @{ $self->{args} }, '--auth-token-ttl', $opt{token_ttl} if $opt{token_ttl};
	push @{ $self->{args} }, '--quota-backend-bytes', $opt{quota} if $opt{quota};
	for my $i (0 .. ($opt{members} // 3) - 1)
	{
		my $port = PostgreSQL::Test::Cluster::get_free_port();

		push @{ $self->{members} },
		  {
			name   => "etcd${number}_$i",
			number => $i,
			port   => $port,
			url    => ($opt{tls} ? 'https' : 'http') . "://127.0.0.1:$port",
			client => 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port(),
			peer   => 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port(),
			data   => "$PostgreSQL::Test::Utils::tmp_check/etcd${number}_$i",
			log    => "$PostgreSQL::Test::Utils::log_path/etcd${number}_$i.log",
		  };
	}
	push @clusters, $self;
	$self->_make_authority foreach $opt{tls} ? 1 : ();
	$self->start;
	$self->_make_users if $opt{auth};
	if ($opt{proxy})
	{
		$_->{proxy} = start_proxy($_->{port}) foreach @{ $self->{members} };
	}
	return $self;
}

{

	package EtcdCluster::Cluster;

	our @ISA = ('DschedTest::Etcd');

	sub endpoints
	{
		my ($self, @numbers) = @_;
		my $scheme = $self->{tls} ? 'https' : 'http';

		return join(',', map { defined $_->{proxy} ? "$scheme://127.0.0.1:" . $_->{proxy}->port : $_->{url} } $self->_members(@numbers));
	}

	sub conf
	{
		my ($self) = @_;
		my $conf = '';

		$conf .= "dsched.etcd_ca_file = '$self->{dir}/ca.crt'\ndsched.etcd_cert_file = '$self->{dir}/client.crt'\n"
		  . "dsched.etcd_key_file = '$self->{dir}/client.key'\n"
		  if $self->{tls};
		$conf .= "dsched.etcd_user = 'dsched'\ndsched.etcd_password_file = '$self->{dir}/password'\n" if $self->{users};
		return $conf;
	}

	sub proxy
	{
		my ($self, $number) = @_;

		return $self->{members}[$number]{proxy};
	}

	sub way
	{
		my ($self) = @_;

		return bless {
			scheme  => $self->{tls} ? 'https' : 'http',
			proxies => [ map { EtcdProxy::start_proxy($_->{port}) } @{ $self->{members} } ],
		}, 'EtcdCluster::Way';
	}

	sub directory
	{
		my ($self) = @_;

		return $self->{dir};
	}

	# ---- the daemon

	sub _command
	{
		my ($self, $member) = @_;
		my $peers = join(',', map { "$_->{name}=$_->{peer}" } @{ $self->{members} });

		return (
			'etcd', '--name', $member->{name}, '--data-dir', $member->{data},
			'--listen-client-urls', "$member->{url},$member->{client}", '--advertise-client-urls', $member->{url},
			'--listen-peer-urls', $member->{peer}, '--initial-advertise-peer-urls', $member->{peer},
			'--initial-cluster', $peers, '--initial-cluster-token', "dsched$self->{number}",
			$self->{timings} eq 'default' ? () : ('--heartbeat-interval', '20', '--election-timeout', '200'),
			$self->{tls}
			? (
				'--cert-file', "$self->{dir}/server.crt", '--key-file', "$self->{dir}/server.key",
				'--trusted-ca-file', "$self->{dir}/ca.crt", '--client-cert-auth')
			: (),
			'--log-level', 'error', '--logger', 'zap', @{ $self->{args} });
	}

	sub fresh_leader
	{
		my ($self) = @_;

		return DschedTest::wait_for(sub { my $leader = $self->leader; defined $leader ? "$leader " : '' }, 30) + 0;
	}

	# ---- TLS

	sub _openssl
	{
		my (@args) = @_;
		my $said;

		IPC::Run::run([ 'openssl', @args ], '>', \$said, '2>&1') or die "openssl @args: $said";
		return;
	}

	sub _make_authority
	{
		my ($self) = @_;

		foreach my $name ('ca', 'other')
		{
			_openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30', '-subj',
				"/O=dsched test/CN=$name", '-keyout', "$self->{dir}/$name.key", '-out', "$self->{dir}/$name.crt");
		}
		$self->certificate('server', server => 1);
		$self->certificate('client');
		return;
	}

	sub certificate
	{
		my ($self, $name, %opt) = @_;
		my $dir = $self->{dir};
		my $ca  = $opt{ca} // 'ca';
		my $cn  = defined $opt{cn} ? "/CN=$opt{cn}" : '';

		open(my $ext, '>', "$dir/$name.ext") or die "$dir/$name.ext: $!";
		print $ext 'extendedKeyUsage=clientAuth', $opt{server} ? ',serverAuth' : '', "\n";
		print $ext 'subjectAltName=', $opt{san} // 'IP:127.0.0.1,DNS:localhost', "\n" if $opt{server};
		close($ext);
		_openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', "/O=dsched test $name$cn",
			'-keyout', "$dir/$name.key.new", '-out', "$dir/$name.csr");
		# "x509 -days" takes no past; "ca" does, but wants a directory of its own.
		my @lifetime = ($opt{days} // 30) < 0 ? ('-days', '0') : ('-days', $opt{days} // 30);
		_openssl('x509', '-req', '-in', "$dir/$name.csr", '-CA', "$dir/$ca.crt", '-CAkey', "$dir/$ca.key", '-CAcreateserial',
			'-CAserial', "$dir/$ca.srl", @lifetime, '-extfile', "$dir/$name.ext", '-out', "$dir/$name.crt.new");
		chmod(0600, "$dir/$name.key.new");
		rename("$dir/$name.$_.new", "$dir/$name.$_") foreach 'key', 'crt';
		return ("$dir/$name.crt", "$dir/$name.key");
	}

	# ---- users

	sub write_password
	{
		my ($self, $text) = @_;
		my $file = "$self->{dir}/password";

		unlink("$file.new");
		open(my $out, '>', "$file.new") or die "$file.new: $!";
		chmod(0600, "$file.new");
		print $out "$text\n";
		close($out);
		rename("$file.new", $file);
		return $file;
	}

	# A short spell of work of a hundred milliseconds in etcd, by design of its password hashes.
	sub set_password
	{
		my ($self, $text) = @_;

		$self->post('/v3/auth/user/changepw', { name => 'dsched', password => $text });
		return;
	}

	sub _make_users
	{
		my ($self) = @_;
		my $prefix = MIME::Base64::encode_base64('/dsched/test/', '');
		my $end    = MIME::Base64::encode_base64('/dsched/test0', '');

		$self->post('/v3/auth/user/add', { name => 'root', password => 'rootpw' });
		$self->post('/v3/auth/role/add', { name => 'root' });
		$self->post('/v3/auth/user/grant', { user => 'root', role => 'root' });
		$self->post('/v3/auth/user/add', { name => 'dsched', password => 'first secret' });
		$self->post('/v3/auth/role/add', { name => 'dsched' });
		$self->post('/v3/auth/role/grant',
			{ name => 'dsched', perm => { permType => 'READWRITE', key => $prefix, range_end => $end } });
		$self->post('/v3/auth/user/grant', { user => 'dsched', role => 'dsched' });
		$self->post('/v3/auth/enable', {});
		$self->{users} = 1;
		$self->write_password('first secret');
		return;
	}

	# As root where there are users: each member has its token.
	sub _post_to
	{
		my ($self, $member, $path, $body) = @_;

		return $self->SUPER::_post_to($member, $path, $body) unless $self->{users};
		for my $try (1, 2)
		{
			$member->{token} //= $self->SUPER::_post_to($member, '/v3/auth/authenticate', { name => 'root', password => 'rootpw' })->{token};
			my $answer = HTTP::Tiny->new(timeout => 10)->post("$member->{client}$path",
				{
					content => JSON::PP->new->utf8->encode($body),
					headers => { 'Content-Type' => 'application/json', 'Authorization' => $member->{token} },
				});

			return JSON::PP->new->utf8->decode($answer->{content}) if $answer->{success};
			die "$member->{name} answers $answer->{status} $answer->{content}" if $try == 2;
			delete $member->{token};
		}
	}

	sub ctl
	{
		my ($self, @args) = @_;
		my ($stdout, $stderr) = ('', '');
		my $endpoints = join(',', map { $_->{client} } grep { defined $_->{pid} } @{ $self->{members} });

		local $ENV{ETCDCTL_API} = 3;
		IPC::Run::run(
			[ 'etcdctl', '--endpoints', $endpoints, $self->{users} ? ('--user', 'root:rootpw') : (), @args ],
			'>', \$stdout, '2>', \$stderr)
		  or die "etcdctl @args: $stderr";
		chomp $stdout;
		return $stdout;
	}
}

{

	package EtcdCluster::Way;

	sub endpoints
	{
		my ($self) = @_;

		return join(',', map { "$self->{scheme}://127.0.0.1:" . $_->port } @{ $self->{proxies} });
	}

	sub proxy { return $_[0]{proxies}[ $_[1] ] }

	sub tell
	{
		my ($self, $what, @args) = @_;

		$_->$what(@args) foreach @{ $self->{proxies} };
		return;
	}
}

1;
