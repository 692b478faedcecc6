package org.dqtoolchain.draw;

/** Told how far a drawing is, on the thread that draws. */
public interface Progress {
    /**
     * @param done calls of the network that are done: 0 while prompts are read and programs opened, {@code total} while the picture
     *     is decoded
     * @return whether to go on; with false the drawing ends with a CancellationException
     */
    boolean goesOn(int done, int total);
}
