# Perl's LWP through an HTTP proxy.
#
# perl-http.pl PROXY_URL URL BLOB fetches URL/blob and sends the file BLOB to URL/, says `same` when both arrived
# unchanged, and fails otherwise.

use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use LWP::UserAgent;

my ($proxy, $url, $path) = @ARGV;
my $blob = do { local (@ARGV, $/) = $path; binmode STDIN; <> };
my $agent = LWP::UserAgent->new(timeout => 15);
$agent->proxy([ 'http', 'https' ], $proxy);

my $came = $agent->get("$url/blob");
die $came->status_line, "\n" unless $came->is_success;
my $digest = $agent->post("$url/", Content => $blob);
die $digest->status_line, "\n" unless $digest->is_success;
die "what arrived differs from what was sent\n"
    unless $came->content eq $blob && $digest->content eq sha256_hex($blob);
print "same\n";
