import java.io.BufferedOutputStream;
import java.io.DataOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.concurrent.CancellationException;
import org.dqtoolchain.draw.BundleFacts;
import org.dqtoolchain.draw.DrawingException;
import org.dqtoolchain.draw.DrawnPicture;
import org.dqtoolchain.draw.Generator;
import org.dqtoolchain.draw.Wish;

/**
 * Does what the app does with the library: {@code inspect BUNDLE}, or {@code draw BUNDLE OUT [--prompt TEXT ...]}, which writes
 * width, height and pixels as big-endian integers. {@code --stop-at N}, {@code --throw-at N} and {@code --second-at N}: what the
 * Nth call of the progress does; the last draws another picture on another thread.
 */
final class Host {
    private static final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private Host() {}

    /** Commands that ":::" separates; so it does what each printed. */
    public static void main(String[] words) throws IOException {
        int from = 0;
        for (int i = 0; i <= words.length; i++) {
            if (i < words.length && !words[i].equals(":::")) continue;
            run(Arrays.copyOfRange(words, from, i));
            out.println(":::");
            from = i + 1;
        }
    }

    private static void run(String[] words) throws IOException {
        try {
            if (words[0].equals("inspect")) inspect(new File(words[1]));
            else draw(new File(words[1]), Path.of(words[2]), Arrays.copyOfRange(words, 3, words.length));
        } catch (DrawingException error) {
            out.println("DrawingException: " + error.getMessage());
        } catch (CancellationException error) {
            out.println("CancellationException");
        } catch (IllegalStateException error) {
            out.println("IllegalStateException: " + error.getMessage());
        }
    }

    private static void inspect(File bundle) throws DrawingException {
        BundleFacts facts = Generator.inspect(bundle);
        for (int i = 0; i < facts.steps.length; i++) {
            out.println("sampling " + facts.steps[i] + " " + facts.guidances[i] + " " + BundleFacts.isGuided(facts.guidances[i]));
        }
        out.println("takes" + (facts.takesPrompt ? " prompt" : "") + (facts.takesLabel ? " label" : ""));
    }

    /** Until it ends. */
    private static void drawSecond(Wish wish) {
        Thread thread = new Thread(() -> {
            try {
                Generator.draw(wish, (done, total) -> true);
                out.println("second: drawn");
            } catch (DrawingException error) {
                out.println("second: " + error.getMessage());
            }
        });
        thread.start();
        try {
            thread.join();
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    private static void draw(File bundle, Path file, String[] words) throws DrawingException, IOException {
        Wish wish = new Wish(bundle);
        wish.lowMemory = false;
        int stopAt = -1;
        int throwAt = -1;
        int secondAt = -1;
        for (int i = 0; i < words.length; i += 2) {
            String value = words[i + 1];
            switch (words[i]) {
                case "--prompt": wish.prompt = value; break;
                case "--negative-prompt": wish.negativePrompt = value; break;
                case "--label": wish.label = Long.valueOf(value); break;
                case "--seed": wish.seed = Long.parseLong(value); break;
                case "--steps": wish.steps = Integer.valueOf(value); break;
                case "--guidance": wish.guidance = Double.valueOf(value); break;
                case "--threads": wish.threads = Integer.valueOf(value); break;
                case "--low-memory": wish.lowMemory = Boolean.parseBoolean(value); break;
                case "--stop-at": stopAt = Integer.parseInt(value); break;
                case "--throw-at": throwAt = Integer.parseInt(value); break;
                case "--second-at": secondAt = Integer.parseInt(value); break;
                default: throw new IllegalArgumentException(words[i]);
            }
        }
        int[] calls = {0, stopAt, throwAt, secondAt};
        DrawnPicture drawn = Generator.draw(wish, (done, total) -> {
            out.println("progress " + done + " " + total);
            if (calls[0] == calls[2]) throw new IllegalStateException("from the progress");
            if (calls[0] == calls[3]) drawSecond(wish);
            return calls[0]++ != calls[1];
        });
        for (String warning : drawn.warnings) out.println("warning " + warning);
        out.println("times " + (drawn.seconds >= drawn.secondsOfNetwork && drawn.secondsOfNetwork > 0) + " memory " + (drawn.peakMemory > 0));
        try (DataOutputStream stream = new DataOutputStream(new BufferedOutputStream(Files.newOutputStream(file)))) {
            stream.writeInt(drawn.width);
            stream.writeInt(drawn.height);
            for (int pixel : drawn.argb) stream.writeInt(pixel);
        }
    }
}
