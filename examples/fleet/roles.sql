-- Two users with the least rights: machines may add records, analysts may read them.
--
-- Run by an administrator before `litellm-ledger database init` (or after: init makes the groups where they
-- are missing).  Passwords are files in the directory $SECRETS, so that no command line shows them.

\set machine `cat "$SECRETS/machine"`
\set analyst `cat "$SECRETS/analyst"`

CREATE ROLE ledger_writer NOLOGIN;
CREATE ROLE ledger_reader NOLOGIN;

CREATE ROLE machine LOGIN PASSWORD :'machine' IN ROLE ledger_writer;
CREATE ROLE analyst LOGIN PASSWORD :'analyst' IN ROLE ledger_reader;
