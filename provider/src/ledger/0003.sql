-- Version 3. Never changed; what comes later is another migration.
-- Whether a job runs when nobody waits for it any more: one that is not kept is not run again
-- after a crash.
ALTER TABLE jobs ADD COLUMN keep INTEGER NOT NULL DEFAULT 1 CHECK (keep IN (0, 1));
-- When input, output and log of an old job were removed; receipt and opening stay.
ALTER TABLE jobs ADD COLUMN pruned INTEGER;
CREATE INDEX jobs_to_prune ON jobs (finished) WHERE pruned IS NULL AND state <> 0;
