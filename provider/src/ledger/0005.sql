-- Version 5. Never changed; what comes later is another migration.
-- A place is one of an opening of a channel: an account that is closed and opened anew counts from 0
-- again. A job from before says of none, and its place is taken in every opening.
ALTER TABLE jobs ADD COLUMN network INTEGER;
ALTER TABLE jobs ADD COLUMN incarnation BLOB CHECK (length(incarnation) = 32);
DROP INDEX jobs_place;
CREATE UNIQUE INDEX jobs_place ON jobs (place, network, incarnation) WHERE place IS NOT NULL;
