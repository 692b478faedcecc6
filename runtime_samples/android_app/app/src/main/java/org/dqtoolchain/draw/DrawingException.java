package org.dqtoolchain.draw;

import java.nio.charset.StandardCharsets;

/** A picture that cannot be drawn: the text says what was got, what is allowed and what to do. */
public final class DrawingException extends Exception {
    private static final long serialVersionUID = 1L;

    public DrawingException(String text) {
        super(text);
    }

    /** Called by the library, whose texts are UTF-8; JNI's own strings are not. */
    DrawingException(byte[] utf8) {
        super(new String(utf8, StandardCharsets.UTF_8));
    }
}
