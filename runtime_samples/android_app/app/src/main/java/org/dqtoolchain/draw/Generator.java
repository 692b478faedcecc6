package org.dqtoolchain.draw;

import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.atomic.AtomicBoolean;

/** The C++ library: text encoders, sampler and decoder of a bundle. One drawing at a time; it takes the thread that asks. */
public final class Generator {
    private static final AtomicBoolean isDrawing = new AtomicBoolean();

    static {
        System.loadLibrary("dq_draw");
    }

    private Generator() {}

    /**
     * What a bundle offers, without reading more than its two JSON files.
     *
     * @throws DrawingException it is no bundle of a whole pipeline, or not for the runtime in this library
     */
    public static BundleFacts inspect(File bundle) throws DrawingException {
        return inspect(utf8(bundle.getPath()));
    }

    /**
     * Prompt in, picture out.
     *
     * @throws DrawingException another drawing goes on, the wish cannot be fulfilled, the bundle is damaged, or the runtime refuses
     * @throws java.util.concurrent.CancellationException {@code progress} said so
     */
    public static DrawnPicture draw(Wish wish, Progress progress) throws DrawingException {
        if (!isDrawing.compareAndSet(false, true)) {
            throw new DrawingException("another picture is being drawn, allowed is one at a time; wait for its end, or stop it first");
        }
        try {
            return drawAlone(wish, progress);
        } finally {
            isDrawing.set(false);
        }
    }

    private static DrawnPicture drawAlone(Wish wish, Progress progress) throws DrawingException {
        return draw(
                utf8(wish.bundle.getPath()),
                wish.prompt == null ? null : utf8(wish.prompt),
                utf8(wish.negativePrompt),
                wish.label == null ? -1 : required("the label", wish.label, 0),
                required("the seed", wish.seed, 0),
                wish.steps == null ? 0 : (int) required("the steps", wish.steps, 1),
                wish.guidance == null ? Double.NaN : finite(wish.guidance),
                wish.threads == null ? 0 : (int) required("the threads", wish.threads, 1),
                wish.lowMemory,
                progress);
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** The library reads a smaller number as none. */
    private static long required(String what, long number, long least) throws DrawingException {
        if (number < least) throw new DrawingException(what + " must be a number from " + least + ", got " + number + "; change it");
        return number;
    }

    private static double finite(double number) throws DrawingException {
        if (Double.isNaN(number) || Double.isInfinite(number)) throw new DrawingException("the guidance must be a number, got " + number + "; change it");
        return number;
    }

    private static native BundleFacts inspect(byte[] bundle) throws DrawingException;

    private static native DrawnPicture draw(
            byte[] bundle,
            byte[] prompt,
            byte[] negativePrompt,
            long label,
            long seed,
            int steps,
            double guidance,
            int threads,
            boolean lowMemory,
            Progress progress)
            throws DrawingException;
}
