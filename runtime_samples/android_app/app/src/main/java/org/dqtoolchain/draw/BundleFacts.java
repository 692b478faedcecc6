package org.dqtoolchain.draw;

/** What a person can choose of a bundle. */
public final class BundleFacts {
    /** Step counts and guidance scales, pair by pair; the first pair is the calibrated one. */
    public final int[] steps;

    public final double[] guidances;
    /** Whether the model draws what a text says. */
    public final boolean takesPrompt;
    /** Whether it takes the number of a class. */
    public final boolean takesLabel;

    /** Called by the library. */
    BundleFacts(int[] steps, double[] guidances, boolean takesPrompt, boolean takesLabel) {
        this.steps = steps;
        this.guidances = guidances;
        this.takesPrompt = takesPrompt;
        this.takesLabel = takesLabel;
    }

    /** Without guidance a negative prompt has no effect. */
    public static boolean isGuided(double guidance) {
        return (float) guidance != 1.0F;
    }
}
