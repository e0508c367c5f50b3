-- Version 4: jobs that are paid through a channel, each at its place in it; the account's credit has
-- no part in them. A place belongs to one job for ever: a second receipt for it costs a bond.
ALTER TABLE jobs ADD COLUMN place TEXT;
CREATE UNIQUE INDEX jobs_place ON jobs (place) WHERE place IS NOT NULL;
