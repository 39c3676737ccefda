/* Reads rows from PostgreSQL over TCP, over a connection of the invocation's own. */
package workloads;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** See {@link #handle}. */
public class Rest {
    /** {@code jdbc}: the database's JDBC address; {@code first}: the id to start from. */
    public Map<String, Object> handle(Map<String, Object> event) throws Exception {
        long started = System.nanoTime();
        List<Object> rows = new ArrayList<>();
        try (Connection connection = DriverManager.getConnection((String) event.get("jdbc"));
                PreparedStatement query = connection.prepareStatement(
                        "SELECT id, name, mail FROM users WHERE id >= ? ORDER BY id LIMIT 20")) {
            query.setInt(1, ((Number) event.getOrDefault("first", 1)).intValue());
            try (ResultSet result = query.executeQuery()) {
                while (result.next()) {
                    Map<String, Object> row = new HashMap<>();
                    row.put("id", result.getInt(1));
                    row.put("name", result.getString(2));
                    row.put("mail", result.getString(3));
                    rows.add(row);
                }
                Gate.await(event);
            }
        }
        Map<String, Object> reply = new HashMap<>();
        reply.put("rows", rows);
        reply.put("ms", Gate.ms(started));
        return reply;
    }
}
