-- The demo's tables. This runs at every start, so it does no harm when run again.
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL CHECK (name <> ''),
    price INTEGER NOT NULL CHECK (price >= 0)
);

CREATE TABLE IF NOT EXISTS sales (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    item INTEGER NOT NULL REFERENCES items,
    count INTEGER NOT NULL CHECK (count > 0)
);

-- Filled once, while nothing was ever in it.
INSERT INTO items (name, price)
SELECT column1, column2
FROM (VALUES ('acorn', 5), ('birch bark', 120), ('copper kettle', 4900))
WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'items');
