"""Reads rows from PostgreSQL over TCP, over a connection of the invocation's own."""
import time

import psycopg2

import gate


def handler(event, _context):
    """`database`: a libpq connection string; `first`: the id to start from."""
    started = time.monotonic()
    connection = psycopg2.connect(event["database"])
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, name, mail FROM users WHERE id >= %s ORDER BY id LIMIT 20",
                (int(event.get("first", 1)),),
            )
            rows = [{"id": id, "name": name, "mail": mail} for id, name, mail in cursor]
        gate.wait(event)
    finally:
        connection.close()
    return {"rows": rows, "ms": (time.monotonic() - started) * 1e3}
