import java.io.IOException;
import java.io.OutputStream;
import java.net.Authenticator;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.PasswordAuthentication;
import java.net.Proxy;
import java.net.Socket;
import java.util.Arrays;
import java.util.Random;

/**
 * Java's own SOCKS client through the proxy.
 *
 * <p>JavaClient.java HOST PROXY_PORT TARGET_PORT [USER PASSWORD] echoes octets off the target, says
 * "same" when they came back unchanged, and fails otherwise. A HOST with digits only and dots goes as
 * an address, any other goes to the proxy as a name.
 */
public class JavaClient {
    public static void main(String[] arguments) throws Exception {
        String host = arguments[0];
        int port = Integer.parseInt(arguments[2]);
        if (arguments.length > 3) {
            answerWith(arguments[3], arguments[4]);
        }
        Proxy proxy = new Proxy(Proxy.Type.SOCKS,
                new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[1])));
        InetSocketAddress target = host.matches("[0-9.]+")
                ? new InetSocketAddress(InetAddress.getByName(host), port)
                : InetSocketAddress.createUnresolved(host, port);

        byte[] sent = new byte[300_000];
        new Random().nextBytes(sent);
        try (Socket socket = new Socket(proxy)) {
            socket.setSoTimeout(15_000);
            socket.connect(target, 15_000);
            Thread writer = new Thread(() -> write(socket, sent));
            writer.start();
            byte[] came = socket.getInputStream().readAllBytes();
            writer.join();
            if (!Arrays.equals(sent, came)) {
                System.err.println(came.length + " octets came that differ from what was sent");
                System.exit(1);
            }
        }
        System.out.println("same");
    }

    private static void write(Socket socket, byte[] octets) {
        try {
            OutputStream stream = socket.getOutputStream();
            stream.write(octets);
            socket.shutdownOutput();
        } catch (IOException error) {
            System.err.println(error);
        }
    }

    private static void answerWith(String user, String password) {
        Authenticator.setDefault(new Authenticator() {
            @Override
            protected PasswordAuthentication getPasswordAuthentication() {
                return new PasswordAuthentication(user, password.toCharArray());
            }
        });
    }
}
