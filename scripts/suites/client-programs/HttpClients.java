import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.Authenticator;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.PasswordAuthentication;
import java.net.Proxy;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;

/**
 * Java's two HTTP clients through an HTTP proxy.
 *
 * <p>HttpClients.java old|new PROXY_HOST PROXY_PORT URL BLOB [USER PASSWORD] fetches URL/blob and sends the file BLOB
 * to URL/, chunked, says "same" when both arrived unchanged, and fails otherwise.
 */
public class HttpClients {
    private static InetSocketAddress proxy;
    private static Authenticator login;
    private static HttpClient client;

    public static void main(String[] arguments) throws Exception {
        proxy = new InetSocketAddress(arguments[1], Integer.parseInt(arguments[2]));
        String url = arguments[3];
        byte[] blob = Files.readAllBytes(Path.of(arguments[4]));
        if (arguments.length > 5) {
            login = new Authenticator() {
                @Override
                protected PasswordAuthentication getPasswordAuthentication() {
                    return new PasswordAuthentication(arguments[5], arguments[6].toCharArray());
                }
            };
        }
        HttpClient.Builder builder = HttpClient.newBuilder().proxy(ProxySelector.of(proxy));
        client = (login == null ? builder : builder.authenticator(login)).build();
        boolean old = arguments[0].equals("old");
        byte[] came = old ? byConnection(url + "/blob", null) : byClient(url + "/blob", null);
        byte[] digest = old ? byConnection(url + "/", blob) : byClient(url + "/", blob);
        String expected = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(blob));
        if (!Arrays.equals(came, blob) || !new String(digest).equals(expected)) {
            System.err.println("what arrived differs from what was sent");
            System.exit(1);
        }
        System.out.println("same");
    }

    /** HttpURLConnection, since Java 1.1. */
    private static byte[] byConnection(String url, byte[] body) throws IOException {
        HttpURLConnection connection = (HttpURLConnection)
                URI.create(url).toURL().openConnection(new Proxy(Proxy.Type.HTTP, proxy));
        connection.setReadTimeout(15_000);
        if (login != null) {
            connection.setAuthenticator(login);
        }
        if (body != null) {
            connection.setRequestMethod("POST");
            connection.setDoOutput(true);
            // A chunked body that is streamed cannot be sent again after 407.
            if (login == null) {
                connection.setChunkedStreamingMode(50_000);
            }
            connection.getOutputStream().write(body);
        }
        try (InputStream answer = connection.getInputStream()) {
            return answer.readAllBytes();
        }
    }

    /** java.net.http.HttpClient, since Java 11. */
    private static byte[] byClient(String url, byte[] body) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url));
        if (body != null) {
            request.POST(HttpRequest.BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body)));
        }
        HttpResponse<byte[]> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
        if (answer.statusCode() != 200) {
            throw new IOException(url + ": " + answer.statusCode());
        }
        return answer.body();
    }
}
