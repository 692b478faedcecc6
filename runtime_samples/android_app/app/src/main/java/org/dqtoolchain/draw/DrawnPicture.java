package org.dqtoolchain.draw;

import java.nio.charset.StandardCharsets;

/** What came of a prompt. */
public final class DrawnPicture {
    public final int width;
    public final int height;
    /** Row by row, opaque, 0xAARRGGBB, as Android's Bitmap takes them. */
    public final int[] argb;
    /** Of the whole drawing, and in the network alone. */
    public final double seconds;

    public final double secondsOfNetwork;
    /** Largest resident memory of the process, in bytes; 0: not known. */
    public final long peakMemory;
    /** What of the prompts was left out. */
    public final String[] warnings;

    /** Called by the library. */
    DrawnPicture(int width, int height, int[] argb, double seconds, double secondsOfNetwork, long peakMemory, byte[][] warnings) {
        this.width = width;
        this.height = height;
        this.argb = argb;
        this.seconds = seconds;
        this.secondsOfNetwork = secondsOfNetwork;
        this.peakMemory = peakMemory;
        this.warnings = new String[warnings.length];
        for (int i = 0; i < warnings.length; i++) this.warnings[i] = new String(warnings[i], StandardCharsets.UTF_8);
    }
}
