-- Version 2: limits of an account on how often it asks and how much it uploads.
ALTER TABLE accounts ADD COLUMN per_minute_max INTEGER CHECK (per_minute_max > 0);
ALTER TABLE accounts ADD COLUMN upload_bytes_max INTEGER CHECK (upload_bytes_max >= 0);
-- Bytes of all blobs whose uploads it started, while it had a limit.
ALTER TABLE accounts ADD COLUMN uploaded INTEGER NOT NULL DEFAULT 0 CHECK (uploaded >= 0);
