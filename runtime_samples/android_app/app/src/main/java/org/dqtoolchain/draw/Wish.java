package org.dqtoolchain.draw;

import java.io.File;

/** What to draw, and with which bundle. Null is the library's default: no prompt, no label, the calibrated steps and guidance. */
public final class Wish {
    public final File bundle;
    public String prompt;
    public String negativePrompt = "";
    public Long label;
    /** 0 to 2^63 - 1; the same seed gives the same picture. */
    public long seed;

    public Integer steps;
    public Double guidance;
    /** Processor cores; null: as the runtime chooses. */
    public Integer threads;
    /** Text encoders, network and decoder are loaded one after the other. */
    public boolean lowMemory = true;

    public Wish(File bundle) {
        this.bundle = bundle;
    }
}
