#!/bin/sh
# Make the passwords, and the service files that have them: secrets/NAME and secrets/NAME.conf.
#
#   sh secrets.sh [HOST] [SSLMODE]
#
# The directory is for you alone.  The files are not: in a container another user reads them, and a password
# file (PGPASSFILE) that a group may read is ignored. A service file has no such rule.
set -eu
cd "$(dirname "$0")"
mkdir -m 700 secrets
for user in postgres machine analyst; do
	word=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
	printf '%s' "$word" >"secrets/$user"
	cat >"secrets/$user.conf" <<CONF
[usage]
host=${1:-database}
dbname=usage
user=$user
password=$word
sslmode=${2:-disable}
CONF
	chmod 644 "secrets/$user" "secrets/$user.conf"
done
