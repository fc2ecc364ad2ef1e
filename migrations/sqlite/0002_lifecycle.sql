-- What happens to accounts after they were made: tokens expire, users are disabled or deleted, names are released.

ALTER TABLE api_tokens ADD COLUMN expires_at TEXT;

-- A deleted user's row stays, without its address and tokens, as the owner of its slug and its names.
ALTER TABLE users ADD COLUMN disabled_at TEXT;
ALTER TABLE users ADD COLUMN deleted_at TEXT;

-- A released row keeps its subdomain, so that UNIQUE (subdomain) goes on guarding it, and gives its name free: name
-- becomes '#' and the row's id, released_name remembers what it was. Its own account's next claim revives the row.
ALTER TABLE tunnels ADD COLUMN released_at TEXT;
ALTER TABLE tunnels ADD COLUMN released_name TEXT;
