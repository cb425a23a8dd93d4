-- The demo's tables. This runs at every start, so it does no harm when run again.
CREATE TABLE IF NOT EXISTS items (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (name <> ''),
    price integer NOT NULL CHECK (price >= 0)
);

CREATE TABLE IF NOT EXISTS sales (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item integer NOT NULL REFERENCES items,
    count integer NOT NULL CHECK (count > 0)
);

-- Filled once, while nothing was ever in it.
INSERT INTO items (name, price)
SELECT name, price
FROM (VALUES ('acorn', 5), ('birch bark', 120), ('copper kettle', 4900)) AS goods (name, price)
WHERE NOT EXISTS (SELECT 1 FROM pg_sequences WHERE sequencename = 'items_id_seq' AND last_value IS NOT NULL);
