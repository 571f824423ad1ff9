-- What retention and erasure need beside: sums that went too, rejected lines that are gone, and
-- marks of both that nobody can set who is not the owner.

ALTER TABLE litellm_ledger.gaps ADD COLUMN rejected bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN litellm_ledger.gaps.rejected IS 'How many of the numbers were rows of rejected here';

ALTER TABLE litellm_ledger.expired_months ADD COLUMN untold bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN litellm_ledger.expired_months.untold IS 'How many of the outcomes are in no sum either, since the sums went too';

REVOKE INSERT ON litellm_ledger.gaps FROM ledger_writer;
GRANT INSERT (writer_id, first, last, reason, acked_until) ON litellm_ledger.gaps TO ledger_writer;

ALTER TABLE litellm_ledger.batches ADD COLUMN rewritten bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN litellm_ledger.batches.rewritten IS 'Rows that erasure has written anew, without what told a person: their lines are not those of sha256';
