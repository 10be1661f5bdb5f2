BEGIN;
CREATE TABLE rows (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT);
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {COUNT})
    INSERT INTO rows SELECT n, n % 100, printf('name %d', n * 7919 % 1000003) FROM numbers;
COMMIT;
CREATE INDEX by_name ON rows (name);
SELECT count(*), sum(id), min(name), max(length(name)) FROM rows;
SELECT count(DISTINCT name) FROM rows;
SELECT kind, count(*), sum(id) FROM rows GROUP BY kind ORDER BY sum(id) DESC LIMIT 2;
SELECT sum(length(json_object('id', id, 'name', upper(name), 'tags', json_array(kind, id % 7)))) FROM rows;
SELECT length(group_concat(name)) FROM rows;
UPDATE rows SET name = name || ' of ' || kind WHERE kind < 30;
DELETE FROM rows WHERE kind >= 50;
SELECT count(*), sum(length(name)) FROM rows;
PRAGMA integrity_check;
